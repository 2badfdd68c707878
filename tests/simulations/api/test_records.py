"""Records of one's own from Python: frames of polars and pandas, and files of settings."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest

import consilium
from consilium.simulations.api.records import cohorts_of
from tests.simulations.own_tables import STUDY, write_tables

OWN = consilium.parse_study(STUDY)


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tables(tmp_path_factory.mktemp("own"), blank=4)


def frames(tables: Path) -> tuple[pl.DataFrame, pl.DataFrame]:
    stays = pl.read_csv(tables / "stays.csv").rename({"age": "Age"})
    events = pl.read_csv(tables / "events.csv")
    return stays, events


def in_pandas(frame: pl.DataFrame) -> Any:
    pandas = pytest.importorskip("pandas")
    return pandas.DataFrame(frame.to_dict(as_series=False))


def read(records: consilium.DealtRecords, study: consilium.Study = OWN) -> dict[str, list[Any]]:
    """What each site and the test hold, down to the values."""
    dealt, cohorts = cohorts_of(study, records)
    places = [*cohorts.sites.items(), *((f"test {n}", s) for n, s in cohorts.test.items())]
    return {
        name: [
            (p.patient_id, s.hours_E.tolist(), s.variable_E.tolist(), s.value_E.tolist(), s.label)
            for p in source.read_patients(dealt)
            for s in p.stays
        ]
        for name, source in places
    }


def test_frames_of_polars_and_pandas_and_a_file_of_settings_give_the_same_patients(
    tables: Path,
) -> None:
    stays, events = frames(tables)
    by_file = read(consilium.Records.from_settings(tables / "records.toml"))
    assert sum(map(len, by_file.values())) == 90
    for one, two in ((stays, events), (in_pandas(stays), in_pandas(events))):
        given = consilium.Records.from_frames(one, two, person="person", in_study_units=True)
        assert read(given) == by_file


def test_times_and_text_of_pandas_are_taken_over(tables: Path) -> None:
    stays, events = (in_pandas(frame) for frame in frames(tables))
    pandas = pytest.importorskip("pandas")
    stays["start"] = pandas.to_datetime(stays["start"])
    events["time"] = pandas.to_datetime(events["time"])
    given = consilium.Records.from_frames(
        stays, events, person="person", site="ward", in_study_units=True, test="2024-03-01"
    )
    found = read(given)
    assert set(found) == {
        "east", "north", "south-wing", "test east", "test north", "test south-wing",
    }  # fmt: skip  # reads as one
    tested = [
        int(person) for name, rows in found.items() if name[:5] == "test " for person, *_ in rows
    ]
    assert sorted(tested) == list(range(56, 90))


def test_a_long_frame_with_hours_and_codes_under_other_names(tables: Path) -> None:
    stays, events = frames(tables)
    start = stays.select("person", pl.col("start").str.to_datetime().alias("begun"))
    long = events.join(start, on="person").select(
        pl.col("person"),
        ((pl.col("time").str.to_datetime() - pl.col("begun")).dt.total_minutes() / 60).alias("at"),
        pl.lit("pulse").alias("what"),
        pl.col("HR").alias("result"),
        pl.lit("bpm").alias("unit"),
    )
    given = consilium.Records.from_frames(
        stays.drop("start").with_columns(pl.lit("a").alias("unused")),
        long,
        person="person",
        hours="at",
        variable="what",
        value="result",
        variables={"HR": {"codes": ["pulse"]}, "Age": {"unit": "a"}},
    )
    assert read(given) == read(consilium.Records.from_settings(tables / "records.toml"))


def test_settings_of_each_site_by_name_or_in_a_list(tmp_path: Path) -> None:
    files = {
        name: write_tables(tmp_path / name, persons=20, first=100 * n) / "records.toml"
        for n, name in enumerate(OWN.sites)
    }
    named = read(consilium.Records.from_settings(files))
    assert {name for name in named if not name.startswith("test")} == set(OWN.sites)
    listed = [path.rename(path.parent / f"{name}.toml") for name, path in files.items()]
    assert read(consilium.Records.from_settings(listed)) == named


@pytest.mark.slow
def test_a_study_runs_on_frames_and_its_sites_are_the_frames(tables: Path) -> None:
    stays, events = frames(tables)
    records = consilium.Records.from_frames(
        stays, events, person="person", site="ward", in_study_units=True
    )
    result = consilium.simulate(OWN, records, workers=1)
    assert result.study.sites == ("east", "north", "south-wing")
    assert set(result.by_site) <= set(result.study.sites)
    assert repr(records) == "DealtRecords(data frames)"


def test_what_is_no_frame_or_lacks_a_column_is_refused_in_a_sentence(tables: Path) -> None:
    stays, events = frames(tables)
    for given, told in (
        ((stays, [1, 2], "person", {}), "events is a list, not a data frame"),
        ((stays, events, "id", {}), "the frame of stays has no column 'id'"),
        ((stays, events, "person", {"time": "at"}), "the frame of events has no column 'at'"),
        ((stays, events, "person", {"colour": "x"}), "'colour' is no column that can be named"),
        (
            (stays.with_columns(pl.lit([1]).alias("HR")), events, "person", {"test": 2.0}),
            "must be a fraction",
        ),
    ):
        one, two, person, names = given
        with pytest.raises(consilium.SettingsError) as refused:
            consilium.Records.from_frames(one, two, person=person, **names)  # type: ignore[arg-type]
        assert told in str(refused.value)
    with pytest.raises(consilium.SettingsError, match="no settings were given"):
        consilium.Records.from_settings([])
    silent = consilium.Records.from_frames(stays, events, person="person")
    with pytest.raises(consilium.DataError, match="rows say no unit"):
        read(silent)
