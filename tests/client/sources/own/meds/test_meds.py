"""MEDS datasets: schema, stays, labels, splits, and what is refused."""

import datetime as dt
import json
import tomllib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from consilium.client.records.features import TimeGrid, to_grid
from consilium.client.sources.common.source import ReadReport
from consilium.client.sources.own.meds.meds_schema import OPTIONAL, REQUIRED, check_columns
from consilium.client.sources.registry import open_source, read_data_settings
from consilium.shared.errors import DataError
from consilium.shared.study.definition import Study, with_changes
from tests.client.sources.cohort_formats import STUDY
from tests.client.sources.own.tables.test_tables import only

BORN = dt.datetime(1950, 5, 1)
IN, OUT = dt.datetime(2020, 1, 1, 8), dt.datetime(2020, 1, 3, 8)
HR = "LOINC//8867-4"
SCHEMA = {
    "subject_id": pl.Int64,
    "time": pl.Datetime("us"),
    "code": pl.String,
    "numeric_value": pl.Float32,
    "text_value": pl.String,
    "unit": pl.String,
}
SMALL = with_changes(only(STUDY, "HR", "Gender", "Age"), data={"source": "meds"})
SETTINGS = 'source = "meds"\npath = "."\nunit = "unit"\n'


def person(subject: int, *more: tuple, died: bool = False) -> list[tuple]:
    """One subject with one stay of two days and a pulse of 80 after an hour."""
    rows = [
        (subject, BORN, "MEDS_BIRTH", None, None, None),
        (subject, None, "GENDER//F", None, None, None),
        (subject, IN, "HOSPITAL_ADMISSION//EW", None, None, None),
        (subject, IN + dt.timedelta(hours=1), HR, 80.0, None, "/min"),
        (subject, OUT, "HOSPITAL_DISCHARGE//HOME", None, None, None),
        *((subject, *row) for row in more),
    ]
    if died:
        rows.append((subject, OUT - dt.timedelta(hours=3), "MEDS_DEATH", None, None, None))
    return rows


def write(folder: Path, rows: Iterable[tuple], **schema: pl.DataType) -> None:
    frame = pl.DataFrame(list(rows), schema=SCHEMA, orient="row").cast(schema)  # type: ignore[arg-type]
    (folder / "data").mkdir(exist_ok=True)
    frame.sort("subject_id", "time").write_parquet(folder / "data" / "0.parquet")


def read(folder: Path, settings: str = "", study: Study = SMALL) -> tuple[TimeGrid, ReadReport]:
    text = SETTINGS + settings
    chosen = read_data_settings(tomllib.loads(text), where="site.toml", folder=folder)
    source = open_source(chosen, study)
    return to_grid(source.read_patients(study), study), source.report


def pulse(grid: TimeGrid) -> list[list[float]]:
    value_NT = grid.value_NTV[:, :, 0]
    return [value_T[~np.isnan(value_T)].tolist() for value_T in value_NT]


def test_a_dataset_is_read_with_age_sex_and_death(tmp_path: Path) -> None:
    write(tmp_path, [*person(1), *person(2, died=True)])
    grid, report = read(tmp_path)
    assert pulse(grid) == [[80], [80]]
    assert grid.y_N.tolist() == [0, 1]
    assert grid.value_NTV[:, 0, 1:].tolist() == [[0, 69], [0, 69]]
    assert grid.mask_NT.sum(axis=1).tolist() == [48, 48]
    assert report.set_aside == {}


def test_what_the_reference_package_accepts_is_accepted_and_its_names_are_ours(
    tmp_path: Path,
) -> None:
    meds = pytest.importorskip("meds")
    from consilium.client.sources.own.meds import meds_schema as ours

    assert (meds.birth_code, meds.death_code) == (ours.BIRTH, ours.DEATH)
    assert (meds.data_subdirectory, meds.subject_splits_filepath) == (ours.DATA, ours.SPLITS_FILE)
    assert meds.dataset_metadata_filepath == ours.METADATA_FILE
    assert meds.__version__.startswith(ours.VERSIONS[-1])
    for kind, schema in (
        ("data", meds.DataSchema),
        ("labels", meds.LabelSchema),
        ("subject splits", meds.SubjectSplitSchema),
    ):
        table = schema.schema().empty_table()
        ignored = {"categorical_value"}  # no task of a study has texts as labels
        assert set(table.column_names) - ignored == {*REQUIRED[kind], *OPTIONAL[kind]}
        pl.from_arrow(table).write_parquet(tmp_path / "t.parquet")
        check_columns(tmp_path / "t.parquet", kind)
        for name in REQUIRED[kind]:
            broken = table.drop_columns([name])
            with pytest.raises(meds_error()):
                schema.validate(broken)
            pl.from_arrow(broken).write_parquet(tmp_path / "t.parquet")
            with pytest.raises(DataError, match=f"has no column '{name}'"):
                check_columns(tmp_path / "t.parquet", kind)


def meds_error() -> type[Exception]:
    from flexible_schema.exceptions import SchemaValidationError

    return SchemaValidationError


def test_a_stay_ends_before_the_next_begins_and_an_open_one_has_no_end(tmp_path: Path) -> None:
    again = dt.datetime(2020, 6, 1)
    more = [
        (again, "HOSPITAL_ADMISSION", None, None, None),
        (again + dt.timedelta(hours=2), HR, 90.0, None, "/min"),
    ]
    write(tmp_path, person(1, *more))
    grid, _ = read(tmp_path)
    assert pulse(grid) == [[80], [90]]
    assert grid.patient_N.tolist() == [0, 0]
    assert grid.mask_NT.sum(axis=1).tolist() == [48, 48]
    soon, _ = read(tmp_path, '[outcome]\nkind = "readmission"\nwithin_days = 200\n')
    assert soon.y_N.tolist() == [1]  # nobody knows yet about the stay that has not ended
    late, _ = read(tmp_path, '[outcome]\nkind = "readmission"\n')
    assert late.y_N.tolist() == [0]


def test_a_condition_and_the_days_of_a_stay_can_be_the_outcome(tmp_path: Path) -> None:
    sepsis = (IN + dt.timedelta(hours=30), "ICD10CM//A41", None, None, None)
    write(tmp_path, [*person(1), *person(2, sepsis)])
    grid, _ = read(tmp_path, '[outcome]\nkind = "condition"\ncodes = ["ICD10CM//A41"]\n')
    assert grid.y_N.tolist() == [0, 1]
    days = with_changes(SMALL, task={"kind": "regression"})
    grid, _ = read(tmp_path, '[outcome]\nkind = "length-of-stay"\n', days)
    assert grid.y_N.tolist() == [2, 2]
    with pytest.raises(DataError, match=r"outcome 'length-of-stay' gives a regression label"):
        read(tmp_path, '[outcome]\nkind = "length-of-stay"\n')


def test_values_without_a_time_hold_for_every_stay(tmp_path: Path) -> None:
    write(tmp_path, person(1, (None, "AGE", 44.0, None, None), (None, "SEX", None, "m", None)))
    settings = (
        '[variables.Age]\ncodes = ["AGE"]\nunit = "a"\n'
        '[variables.Gender]\ncodes = ["SEX"]\nvalues = { m = 1 }\n'
    )
    grid, _ = read(tmp_path, settings)
    assert grid.value_NTV[0, 0, 1:].tolist() == [1, 44]


def test_each_row_of_a_label_table_is_a_sample_of_the_hours_before(tmp_path: Path) -> None:
    write(tmp_path, [*person(1), *person(2)])
    asked = [IN + dt.timedelta(hours=2), IN + dt.timedelta(hours=60), IN - dt.timedelta(hours=1)]
    labels = pl.DataFrame({"subject_id": 1, "prediction_time": asked}).with_columns(
        boolean_value=pl.Series([True, False, False]), float_value=pl.lit(None, pl.Float32)
    )
    labels.write_parquet(tmp_path / "labels.parquet")
    grid, _ = read(tmp_path, 'labels = "labels.parquet"\n')
    assert grid.patient_ids == ("1",)
    assert grid.y_N.tolist() == [0, 1, 0]
    assert pulse(grid) == [[], [80], []]
    both = labels.with_columns(float_value=pl.lit(0.5))
    both.write_parquet(tmp_path / "labels.parquet")
    with pytest.raises(DataError, match="has 2 kinds of labels"):
        read(tmp_path, 'labels = "labels.parquet"\n')


def test_only_the_subjects_of_a_split_are_read(tmp_path: Path) -> None:
    write(tmp_path, [*person(1), *person(2), *person(3)])
    (tmp_path / "metadata").mkdir()
    pl.DataFrame({"subject_id": [1, 2, 3], "split": ["train", "held_out", "train"]}).write_parquet(
        tmp_path / "metadata" / "subject_splits.parquet"
    )
    grid, report = read(tmp_path, 'split = "train"\n')
    assert grid.patient_ids == ("1", "3")
    assert report.filtered == 1
    with pytest.raises(DataError, match="has no subject in split 'tuning'"):
        read(tmp_path, 'split = "tuning"\n')


@pytest.mark.parametrize(
    ("schema", "sentence"),
    [
        ({"subject_id": pl.String}, "column 'subject_id' is String and must be whole numbers"),
        ({"time": pl.Datetime("us", "UTC")}, "must be dates with times and without a zone"),
        ({"time": pl.Int64}, "must be dates with times and without a zone"),
        ({"code": pl.Binary}, "column 'code' is Binary and must be text"),
        ({"numeric_value": pl.String}, "column 'numeric_value' is String and must be numbers"),
    ],
)
def test_another_schema_is_refused_with_column_and_remedy(
    schema: dict, sentence: str, tmp_path: Path
) -> None:
    write(tmp_path, person(1), **schema)
    with pytest.raises(DataError, match=sentence) as caught:
        read(tmp_path)
    assert str(caught.value).startswith(str(tmp_path / "data" / "0.parquet"))
    assert "convert the dataset with current tools" in str(caught.value)


def test_what_is_no_dataset_is_refused_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no .parquet file; point .* at the folder of a MEDS"):
        read(tmp_path)
    write(tmp_path, person(1))
    (tmp_path / "metadata").mkdir()
    for content, sentence in (
        ("[]", "is no JSON object"),
        ("{", "is no JSON object"),
        ('{"meds_version": "0.2.0"}', "meds_version is none of 0.3, 0.4"),
        ("[" * 100_000, "is no JSON object"),
    ):
        (tmp_path / "metadata" / "dataset.json").write_text(content)
        with pytest.raises(DataError, match=sentence):
            read(tmp_path)
    (tmp_path / "metadata" / "dataset.json").write_text(json.dumps({"meds_version": "0.4.1"}))
    read(tmp_path)
    other = SETTINGS.replace('"unit"', '"ucum"')
    chosen = read_data_settings(tomllib.loads(other), where="site.toml", folder=tmp_path)
    with pytest.raises(DataError, match=r"has no column 'ucum'; correct \[data\] unit"):
        list(open_source(chosen, SMALL).read_patients(SMALL))
    for study in (
        with_changes(SMALL, data={"clock": "position"}),
        with_changes(SMALL, task={"per_step": True}),
    ):
        with pytest.raises(DataError, match=r"change .* or the study|choose the matching data"):
            read(tmp_path, study=study)
