"""The hourly task cohorts of the eICU-CRD demo: five tasks over 186 hospitals, as Parquet.

A task is a folder of three files: ``dyn.parquet`` (stay_id, time, hourly values), ``outc.parquet``
(stay_id, label; time, if labels are hourly), ``sta.parquet`` (stay_id, age, sex, height, weight),
as YAIB makes them (van de Water et al., ICLR 2024) from the open demo (Pollard et al., Sci Data
2018;5:180178). ``patient.csv`` beside the folders gives person, hospital and region of each stay.
The unit is the person, whatever the number of stays.

The study's label is the name of a task's folder: ``mortality24`` (one label per stay), ``aki`` and
``sepsis`` (one per hour), ``los`` (remaining hours, one per hour), ``kidney_function`` (creatinine
on the second day, mg/dL).
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
import polars as pl
from numpy.typing import NDArray

from consilium.client.sources.common.cleaning import Cleaner
from consilium.client.sources.common.matrices import (
    require_label,
    require_source,
    require_task,
    require_tokens,
    require_variables,
    stay_of,
)
from consilium.client.sources.common.source import Counted, Patient, Stay, Tally
from consilium.shared.errors import DataError
from consilium.shared.study.definition import Study

LARGEST_FILE_BYTES = 1 << 30
BROKEN = (pl.exceptions.PolarsError, pl.exceptions.PanicException)
TASKS: Mapping[str, tuple[str, bool]] = MappingProxyType(
    {
        "mortality24": ("binary", False),
        "aki": ("binary", True),
        "sepsis": ("binary", True),
        "los": ("regression", True),
        "kidney_function": ("regression", False),
    }
)
"""Kind of each task, and whether its labels are hourly."""
SERIES = MappingProxyType(
    {
        "alb": "g/dL",
        "alp": "U/L",
        "alt": "U/L",
        "ast": "U/L",
        "be": "mmol/L",
        "bicar": "mmol/L",
        "bili": "mg/dL",
        "bun": "mg/dL",
        "ca": "mg/dL",
        "cl": "mmol/L",
        "crea": "mg/dL",
        "dbp": "mm[Hg]",
        "fio2": "%",
        "glu": "mg/dL",
        "hgb": "g/dL",
        "hr": "/min",
        "k": "mmol/L",
        "lact": "mmol/L",
        "map": "mm[Hg]",
        "mg": "mg/dL",
        "na": "mmol/L",
        "o2sat": "%",
        "pco2": "mm[Hg]",
        "ph": "[pH]",
        "phos": "mg/dL",
        "plt": "10*3/uL",
        "po2": "mm[Hg]",
        "ptt": "s",
        "resp": "/min",
        "sbp": "mm[Hg]",
        "temp": "Cel",
        "urine": "mL",
        "wbc": "10*3/uL",
    }
)
STATIC = MappingProxyType({"age": "a", "male": "1", "height": "cm", "weight": "kg"})


class EicuDemo(Counted):
    """One task's cohort, or one hospital's or region's part of it.

    Args:
        path: the folder with the tasks' folders and ``patient.csv``.
        where: keeps only stays with these values in the patient table, such as ``{"hospitalid":
            73}`` or ``{"region": "South"}``; an empty text stands for a missing value.
    """

    name = "eicu-demo"
    person_key = "uniquepid"

    def __init__(self, path: Path, *, where: Mapping[str, float | str] | None = None) -> None:
        self._path = Path(path)
        self._where = dict(where or {})
        self._tally = Tally()

    def read_patients(self, study: Study) -> Iterator[Patient]:
        """Yield every person with all stays of the cohort, in the order of their first stay.

        Raises:
            DataError: a file is missing or damaged, or the study asks for something not in it.
        """
        require_source(study, self.name)
        require_label(study, self.name, TASKS)
        kind, per_step = TASKS[study.data.label]
        require_task(study, self.name, (kind,), per_step=per_step)
        require_variables(study, self.name, {**SERIES, **STATIC})
        require_tokens(study, self.name, ())
        if study.data.step_h != 1 and per_step:
            raise DataError(
                f"study {study.name}: [data] step_h {study.data.step_h} must be 1, since labels "
                f"of {study.data.label!r} are hourly; set step_h = 1"
            )
        self._tally = Tally()
        return self._read(study, per_step)

    def stay_column(self, column: str) -> Mapping[str, str]:
        """Return a column of ``patient.csv``; see :class:`.WithColumns`."""
        table = _load(self._path / "patient.csv")
        for name in ("patientunitstayid", column):
            if name not in table.columns:
                raise DataError(f"eicu-demo: patient.csv has no column {name!r}; correct the name")
        cells = table[column].cast(pl.String).fill_null("")
        return dict(zip(table["patientunitstayid"].cast(pl.String), cells, strict=True))

    def persons(self) -> dict[int, str]:
        """Return the person of each stay that ``where`` keeps.

        Raises:
            DataError: ``patient.csv`` is missing, damaged, or has no such column.
        """
        table = _load(self._path / "patient.csv")
        for column, value in self._where.items():
            if column not in table.columns:
                raise DataError(
                    f"eicu-demo: patient.csv has no column {column!r} to select stays by; use one "
                    f"of {', '.join(table.columns)}"
                )
            held = pl.col(column).cast(pl.String).fill_null("")
            wanted = str(int(value)) if isinstance(value, float) and value % 1 == 0 else str(value)
            table = table.filter(held == wanted)
        for column in ("patientunitstayid", "uniquepid"):
            if column not in table.columns:
                raise DataError(f"eicu-demo: patient.csv has no column {column!r}; replace it")
        return dict(
            zip(table["patientunitstayid"].to_list(), table["uniquepid"].to_list(), strict=True)
        )

    def _read(self, study: Study, per_step: bool) -> Iterator[Patient]:
        cleaner = Cleaner(study, self._tally)
        folder = self._path / study.data.label
        person_of = self.persons()
        names = list(study.variables)
        series = [name for name in names if name in SERIES]
        values = _load(folder / "dyn.parquet", ["stay_id", "time", *series])
        static = _static(
            _load(folder / "sta.parquet", ["stay_id", "age", "sex", "height", "weight"])
        )
        keys = ["stay_id", "time"] if per_step else ["stay_id"]
        labels = _load(folder / "outc.parquet", [*keys, "label"])
        try:
            kept = values.filter(pl.col("stay_id").is_in(list(person_of)))
            self._tally.filtered = values["stay_id"].n_unique() - kept["stay_id"].n_unique()
            tables = _joined(kept, static, labels, keys, names)
        except BROKEN as error:
            raise DataError(
                f"folder {folder}: a column has another type than the task cohorts have (time a "
                "duration, values and labels numbers); make the files again"
            ) from error
        _require_whole(tables, study, folder)
        stays: dict[str, list[Stay]] = {}
        for (stay_id,), rows in tables.group_by("stay_id", maintain_order=True):
            stay = _stay(str(stay_id), rows, names, cleaner, study)
            if np.isnan(stay.label).all():
                self._tally.unlabelled += 1
                continue
            self._tally.stays += 1
            stays.setdefault(person_of[stay_id], []).append(stay)
        for person, of_person in stays.items():
            self._tally.patients += 1
            yield Patient(patient_id=person, stays=tuple(of_person))


def _joined(
    values: pl.DataFrame,
    static: pl.DataFrame,
    labels: pl.DataFrame,
    keys: list[str],
    names: list[str],
) -> pl.DataFrame:
    """Join the three tables to one row per stay and hour, sorted; all but the keys are numbers."""
    if "time" in keys:
        labels = labels.with_columns(_hours("time"))
    return (
        values.with_columns(_hours("time"))
        .join(static, on="stay_id", how="left", validate="m:1")
        .join(labels, on=keys, how="left", validate="1:1" if "time" in keys else "m:1")
        .with_columns(pl.col([*names, "label"]).cast(pl.Float64))
        .sort("stay_id", "time")
    )


def _require_whole(tables: pl.DataFrame, study: Study, folder: Path) -> None:
    """Refuse rows without an hour, infinite values, and outcomes other than 0 or 1."""
    if tables["time"].has_nulls():
        raise DataError(f"file {folder / 'dyn.parquet'}: a row has no time; make the file again")
    numbers = [*study.variables, "label"]
    infinite_by = tables.select(pl.col(numbers).is_infinite().any()).row(0, named=True)
    for name, infinite in infinite_by.items():
        if infinite:
            raise DataError(f"folder {folder}: column {name!r} has an infinite value; mend it")
    known = tables["label"].drop_nulls().drop_nans()
    if study.task.kind == "binary" and not known.is_in([0.0, 1.0]).all():
        raise DataError(
            f"file {folder / 'outc.parquet'}: a label is neither 0 nor 1; make the file again"
        )


def _stay(
    stay_id: str, rows: pl.DataFrame, names: list[str], cleaner: Cleaner, study: Study
) -> Stay:
    hours_T = rows["time"].to_numpy().astype(np.float64)
    value_TV = rows.select(names).to_numpy()
    label_T = rows["label"].to_numpy()
    return stay_of(
        value_TV,
        study,
        cleaner,
        stay_id=stay_id,
        hours_T=hours_T,
        label=_hourly(label_T, hours_T, study) if study.task.per_step else float(label_T[0]),
        end_h=float(min(hours_T[-1] + 1, study.data.reach_h)),
    )


def _hourly(
    label_T: NDArray[np.float64], hours_T: NDArray[np.float64], study: Study
) -> NDArray[np.float32]:
    labels = np.full(study.data.steps, np.nan, dtype=np.float32)
    inside_T = (hours_T >= 0) & (hours_T < study.data.steps)
    labels[hours_T[inside_T].astype(np.int64)] = label_T[inside_T]
    return labels


def _hours(column: str) -> pl.Expr:
    """Return a duration in whole hours."""
    return pl.col(column).dt.total_hours().alias(column)


def _static(table: pl.DataFrame) -> pl.DataFrame:
    """Return the static table with sex as a number, null if unknown."""
    male = (
        pl.when(pl.col("sex") == "Male").then(1.0).when(pl.col("sex") == "Female").then(0.0)
    ).alias("male")
    return table.with_columns(male).drop("sex")


def _load(path: Path, columns: list[str] | None = None) -> pl.DataFrame:
    """Read a whole Parquet or CSV file."""
    try:
        if path.stat().st_size > LARGEST_FILE_BYTES:
            raise DataError(f"file {path} is larger than {LARGEST_FILE_BYTES} bytes; check it")
        if path.suffix == ".csv":
            return pl.read_csv(path, infer_schema_length=None)
        return pl.read_parquet(path, columns=columns)
    except (OSError, *BROKEN) as error:
        needs = f" with columns {', '.join(columns)}" if columns else ""
        raise DataError(
            f"file {path} cannot be read as a {path.suffix[1:]} table{needs}; check or replace it"
        ) from error
