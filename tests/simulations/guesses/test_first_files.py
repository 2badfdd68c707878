"""``init`` on tables that nobody described: what it writes is read whole, or it asks."""

import datetime as dt
import gzip
import json
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from consilium.client.commands.check import settings_from
from consilium.client.quality.measure import Quality, check_quality
from consilium.client.sources.own.settings.tables import EventsFile
from consilium.client.sources.registry import open_source
from consilium.shared.errors import ConsiliumError, DataError, SettingsError
from consilium.shared.study.definition import Study, load_study
from consilium.simulations.cohorts.given_records import Given, simulated
from consilium.simulations.commands.first_look import said
from consilium.simulations.guesses.first_files import guess, usual_folder, write
from consilium.simulations.guesses.toml_text import line, remark, value_text

PERSONS = range(100, 190)
START = dt.datetime(2024, 1, 1, 8)


def died(person: int) -> int:
    return int(person % 3 == 0)


def beats(person: int, hour: int) -> int:
    return 70 + 20 * died(person) + (person * 7 + hour * 3) % 15


def start(person: int) -> dt.datetime:
    return START + dt.timedelta(hours=5 * (person - 100))


def made(
    path: Path, out: Path, *columns: str, **options: str | None
) -> tuple[Study, Quality, dict[str, object]]:
    """What was written for a path: the study, what is read under it, and the settings."""
    options = {"separator": None, "time_format": None, "hours_unit": None} | options
    first = guess(path, said(columns, **options))  # type: ignore[arg-type]
    study_file, records, *_ = write(first, out)
    study = load_study(study_file)
    chosen = settings_from(records)
    quality = check_quality(open_source(chosen, study), study)
    dealt, cohorts = simulated(study, Given(records=records))
    people = sum(len(list(s.read_patients(dealt))) for s in cohorts.sites.values())
    people += sum(len(list(s.read_patients(dealt))) for s in cohorts.test.values())
    assert people == quality.read.patients
    for text in (first.study, first.records):  # every guess stands in a comment
        assert "# guess: " in text
    return study, quality, tomllib.loads(first.records)["data"]


def refusal(kind: type[ConsiliumError], call: Callable[[], object]) -> str:
    with pytest.raises(kind) as refused:
        call()
    assert "\n" not in str(refused.value)
    return str(refused.value)


def asked(path: Path, *columns: str, **options: str | None) -> str:
    options = {"separator": None, "time_format": None, "hours_unit": None} | options
    return refusal(
        ConsiliumError,
        lambda: guess(path, said(columns, **options)),  # type: ignore[arg-type]
    )


def rows(path: Path, header: str, lines: Sequence[str]) -> Path:
    path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return path


def test_a_german_folder_with_semicolons_decimal_commas_and_words(tmp_path: Path) -> None:
    folder = tmp_path / "Klinik Köln"
    folder.mkdir()
    rows(
        folder / "Fälle.csv",
        "FallNr;PatientenNr;Aufnahme;Alter;Geschlecht;verstorben;Station",
        [f"{p + 5000};{p};{start(p):%d.%m.%Y %H:%M};{40 + p % 50};{'mw'[p % 2]};"
         f"{'ja' if died(p) else 'nein'};{'ABC'[p % 3]}" for p in PERSONS],
    )  # fmt: skip  # reads as a table
    rows(
        folder / "Werte.csv",
        "FallNr;Zeitpunkt;Bezeichnung;Wert;Einheit",
        [f"{p + 5000};{start(p) + dt.timedelta(hours=h):%d.%m.%Y %H:%M};{name};{value};{unit}"
         for p in PERSONS for h in range(4)
         for name, value, unit in (("Natrium", f"{138 + p % 5},5", "mmol/L"),
                                   ("Herzfrequenz", str(beats(p, h)), "/min"),
                                   ("CRP", f"{1 + p % 40},25", "mg/L"))],
    )  # fmt: skip  # reads as a table
    study, quality, data = made(folder, tmp_path / "out")
    assert set(study.variables) == {"Age", "Gender", "Na", "HR", "CRP"}
    assert study.variables["HR"].unit == "/min"
    assert study.name == "klinik-koln"
    assert (quality.read.patients, quality.read.stays) == (90, 90)
    assert quality.read.events == 90 * (2 + 3 * 4)  # nothing is lost
    assert data["stays"]["file"] == "stays.csv"  # type: ignore[index]  # ja and nein as numbers
    assert pl.read_csv(tmp_path / "out" / "stays.csv")["verstorben"].sum() == 30


def test_one_long_parquet_with_hours(tmp_path: Path) -> None:
    path = tmp_path / "long.parquet"
    pl.DataFrame(
        [(p, float(h), died(p), 40 + p % 50, name, float(value))
         for p in PERSONS for h in range(0, 20, 4)
         for name, value in (("HR", beats(p, h)), ("Lactate", 1.5 + p % 3 / 4))],
        schema=["subject_id", "hours", "died", "age", "variable", "value"],
        orient="row",
    ).write_parquet(path)  # fmt: skip  # reads as a table
    study, quality, _ = made(path, tmp_path / "out")
    assert set(study.variables) == {"Age", "HR", "Lactate"}
    assert study.variables["Lactate"].unit == "mmol/L"  # the values fit it
    assert study.data.window_h == 17
    assert quality.read.events == 90 * (1 + 2 * 5)


def test_one_wide_csv_with_times_units_in_its_header_and_an_unknown_score(tmp_path: Path) -> None:
    path = rows(
        tmp_path / "wide.csv",
        "patient_id,charttime,HR,Temp [Cel],my score,death",
        [f"{p},{start(p) + dt.timedelta(hours=h):%Y-%m-%d %H:%M:%S},{beats(p, h)},37.{h % 10},"
         f"{(p + h) % 9},{died(p)}" for p in PERSONS for h in range(0, 24, 6)],
    )  # fmt: skip  # reads as a table
    study, quality, data = made(path, tmp_path / "out")
    assert {name: v.unit for name, v in study.variables.items()} == {
        "HR": "/min", "Temp": "Cel", "my score": "1",
    }  # fmt: skip  # reads as one
    assert quality.read.events == 90 * 3 * 4
    assert data["stays"]["start"] == "first time"  # type: ignore[index]


def test_one_row_a_person_is_read_as_what_holds_from_the_start(tmp_path: Path) -> None:
    path = rows(
        tmp_path / "heart.csv",
        "id,age,sex,chol (mg/dL),sick",
        [f"{p},{40 + p % 50},{('female', 'male')[p % 2]},{150 + 7 * p % 60},"
         f"{('no', 'yes')[died(p)]}"
         for p in PERSONS],
    )  # fmt: skip  # reads as a table
    study, quality, _ = made(path, tmp_path / "out")
    assert study.data.label == "sick"  # the only column of two values that is no sex
    assert study.variables["Gender"].role == "static"
    assert quality.read.events == 90 * 3


def test_a_folder_of_stays_with_a_long_and_a_wide_table(tmp_path: Path) -> None:
    folder = tmp_path / "icu"
    folder.mkdir()
    rows(
        folder / "stays.csv",
        "person,stay,start,label,ward",
        [f"{p // 2},{p},{start(p).isoformat()},{died(p)},{'NES'[p % 3]}" for p in PERSONS],
    )
    with gzip.open(folder / "labs.csv.gz", "wt") as file:
        file.write("stay,time,item,value,unit\n")
        file.writelines(
            f"{p},{(start(p) + dt.timedelta(hours=h)).isoformat()},2951-2,{139 + h},mmol/L\n"
            for p in PERSONS for h in range(3)
        )  # fmt: skip  # reads as one
    rows(folder / "vitals.csv", "stay,time,HR,SysABP",
         [f"{p},{(start(p) + dt.timedelta(hours=h)).isoformat()},{beats(p, h)},{110 + h}"
          for p in PERSONS for h in range(4)])  # fmt: skip  # reads as a table
    study, quality, data = made(folder, tmp_path / "out")
    assert set(study.variables) == {"Na", "HR", "SysABP"}  # Na by its LOINC code
    assert (quality.read.patients, quality.read.stays) == (45, 90)
    assert quality.read.events == 90 * (3 + 2 * 4)
    assert (
        (tmp_path / "out" / "records.toml")
        .read_text()
        .endswith('# [sites]\n# column = "ward" # 3 values\n')
    )
    assert len(data["events"]) == 2  # type: ignore[arg-type]


def test_molecules(tmp_path: Path) -> None:
    shapes = ("CC(=O)O", "c1ccccc1O", "CCN(CC)CC", "O=C(N)c1ccccc1", "CC(C)O")
    path = rows(
        tmp_path / "HIV.csv",
        "smiles,activity,HIV_active",
        [f"{'C' * (n % 17)}{shapes[n % 5]},{['CI', 'CM', 'CA'][n % 3]},{int(n % 4 == 0)}"
         for n in range(85)],
    )  # fmt: skip  # reads as a table
    study, quality, data = made(path, tmp_path / "out")
    assert (study.data.source, study.data.label) == ("molecules", "HIV_active")
    assert quality.read.patients == 85
    assert data["column"] == "smiles"


@pytest.mark.skipif("hours_unit" not in EventsFile.model_fields, reason="hours have no unit here")
def test_hours_that_count_days(tmp_path: Path) -> None:
    path = rows(
        tmp_path / "visits.csv",
        "id,day,bilirubin,outcome",
        [f"{p},{30 * v},{1 + (p + v) % 7}.5,{died(p)}" for p in PERSONS for v in range(4)],
    )
    study, quality, data = made(path, tmp_path / "out")
    assert data["events"][0]["hours_unit"] == "d"  # type: ignore[index]
    assert study.data.window_h > 24 * 60
    assert quality.read.events == 90 * 4


def test_what_could_mean_two_things_is_asked(tmp_path: Path) -> None:
    labels = rows(
        tmp_path / "labels.csv",
        "patient_id,hours,HR,died,readmitted",
        [f"{p},{h},{beats(p, h)},{died(p)},{p % 2}" for p in PERSONS for h in range(3)],
    )
    assert "'died', 'readmitted' could each be the outcome to predict" in asked(labels)
    assert made(labels, tmp_path / "one", "label=died")[0].data.label == "died"
    dates = rows(
        tmp_path / "dates.csv",
        "patient_id,time,HR,died",
        [
            f"{p},0{1 + h}/0{1 + p % 9}/2024 10:00,{beats(p, h)},{died(p)}"
            for p in PERSONS
            for h in range(3)
        ],
    )
    assert "--time-format '%d/%m/%Y %H:%M'" in asked(dates)
    assert "does not fit the times" in asked(dates, time_format="%d.%m.%Y")
    months = made(dates, tmp_path / "two", time_format="%m/%d/%Y %H:%M")[2]
    assert months["events"][0]["time_format"] == "%m/%d/%Y %H:%M"  # type: ignore[index]
    offset = rows(
        tmp_path / "offset.csv",
        "patient_id,offset,HR,died",
        [f"{p},{60 * h},{beats(p, h)},{died(p)}" for p in PERSONS for h in range(3)],
    )
    assert "could count minutes, hours or days" in asked(offset)
    assert made(offset, tmp_path / "three", hours_unit="h")[1].read.patients == 90
    cut = rows(tmp_path / "cut.csv", "id;a,b", ["1;2,3"] * 9)
    assert "could be separated by ',' or ';'" in asked(cut)


def test_what_lacks_something_says_what_and_how_to_name_it(tmp_path: Path) -> None:
    lines = [f"{p},{h},{beats(p, h)},{died(p)}" for p in PERSONS for h in range(3)]
    for header, told in (
        ("a,hours,HR,died", "no column says whose a row is; name it: --column person=NAME"),
        ("patient_id,hours,HR,SysABP", "no column could be the outcome"),
        ("patient_id,x,HR,died", "no column that says when each was; name it"),
    ):
        text = [line.replace(",0", ",7").replace(",1", ",8") for line in lines]
        chosen = text if "SysABP" in header else lines
        assert told in asked(rows(tmp_path / "t.csv", header, chosen)), header
    assert "there is no such column; there are" in asked(tmp_path / "t.csv", "label=nope")
    assert "must be ROLE=NAME" in asked(tmp_path / "t.csv", "what=died")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "has 0 lines"),
        (b"a,b\n", "has 1 lines"),
        ("Größe;b\n1;ä\n".encode("latin-1"), "no column says whose a row is"),
        (b"\x00\x01\x02" * 40, "is no text"),
        (b"just\nsome\nwords\n", "not cut into as many columns"),
    ],
)
def test_a_file_that_is_no_table_is_refused_in_a_sentence(
    content: bytes, told: str, tmp_path: Path
) -> None:
    path = tmp_path / "file.csv"
    path.write_bytes(content)
    assert told in asked(path)


def test_nothing_is_overwritten_and_a_folder_without_tables_is_refused(tmp_path: Path) -> None:
    path = rows(
        tmp_path / "a.csv", "id,hours,HR,died", [f"{p},0,{beats(p, 0)},{died(p)}" for p in PERSONS]
    )
    first = guess(path, said([], None, None, None))
    write(first, tmp_path / "out")
    assert "exists and is not overwritten" in refusal(
        SettingsError, lambda: write(first, tmp_path / "out")
    )
    (tmp_path / "empty").mkdir()
    assert "holds no table" in refusal(
        DataError, lambda: guess(tmp_path / "empty", said([], None, None, None))
    )
    assert "does not exist" in asked(tmp_path / "nowhere.csv")
    assert usual_folder(Path("My Cohort.csv")) == Path("my-cohort-study")


@given(key=st.text(min_size=1, max_size=12), value=st.text(max_size=20), why=st.text(max_size=30))
def test_any_name_and_any_comment_make_valid_toml(key: str, value: str, why: str) -> None:
    safe = [text.encode("utf-8", "ignore").decode() for text in (key, value, why)]
    comment = "".join(c for c in safe[2] if c.isprintable())
    text = f"{line(safe[0] or 'k', safe[1], f'# {comment}')}\n{remark(comment)}\n"
    assert tomllib.loads(text) == {safe[0] or "k": safe[1]}


def test_values_are_written_as_they_are() -> None:
    content = {"a": 1, "b": 2.5, "c": True, "d": ["x", "y"], "e e": {"f": 1e-3}, "g": 3.0}
    read = tomllib.loads("\n".join(line(key, value) for key, value in content.items()))
    assert read == content
    assert value_text('"') == json.dumps('"')
