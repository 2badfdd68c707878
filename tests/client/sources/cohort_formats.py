"""One synthetic cohort, written as a hospital's tables, MEDS, OMOP and FHIR would hold it."""

import datetime as dt
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from shared.dictionary import KNOWN
from shared.study import Study, load_study, with_changes
from simulations.hospitals import synthetic_hospital

ROOT = Path(__file__).parents[3]
DEMO = load_study(ROOT / "studies" / "demo.toml")
STUDY: Study = with_changes(DEMO, data={"source": "tables", "minimum_patients": 5})
FIRST_DAY = dt.datetime(2019, 3, 1, 6, 30)
# Some rows come in another unit, as laboratories change: value * factor + offset.
OTHER_UNITS = {
    "Temp": ("[degF]", 1.8, 32.0),
    "Creatinine": ("umol/L", 88.4, 0.0),
    "Lactate": ("mg/dL", 9.008, 0.0),
    "WBC": ("10*9/L", 1.0, 0.0),
    "K": ("meq/L", 1.0, 0.0),
}


@dataclass(frozen=True)
class Written:
    """Stays (patient, stay, start, end, birth, sex, died); events (patient, stay, time, ...)."""

    stays: pl.DataFrame
    events: pl.DataFrame


def written(patients: int = 40, *, index: int = 0) -> Written:
    """The cohort in plain columns, the same every time."""
    stream = np.random.default_rng(7)
    names = list(DEMO.variables)
    source = synthetic_hospital(index, DEMO)
    stays, events = [], []
    for number, patient in enumerate(source.read_patients(DEMO)):
        if number == patients:
            break
        person = 1000 + number - (number % 7 == 6)  # every seventh is a second stay of the last
        (record,) = patient.stays
        start = FIRST_DAY + dt.timedelta(days=9 * number, minutes=int(stream.integers(0, 1440)))
        age = float(record.value_E[record.variable_E == names.index("Age")][0])
        male = float(record.value_E[record.variable_E == names.index("Gender")][0])
        if person == 1000 + number:
            birth = dt.datetime(start.year - int(age), 1, 1) + dt.timedelta(days=number)
            sex = "M" if male else "F"
        stays.append((person, 5000 + number, start, start + dt.timedelta(hours=60), birth, sex,
                      int(record.label)))  # fmt: skip  # reads as one row
        for hour, variable, value in zip(
            record.hours_E, record.variable_E, record.value_E, strict=True
        ):
            name = names[variable]
            if name in ("Age", "Gender"):
                continue
            time = start + dt.timedelta(seconds=round(float(hour) * 3600))
            unit, amount = KNOWN[name].declaration.unit, round(float(value), 3)
            if name in OTHER_UNITS and stream.random() < 0.4:
                unit, factor, offset = OTHER_UNITS[name]
                amount = round(amount * factor + offset, 3)
            events.append((person, 5000 + number, time, name, amount, unit))
    order = stream.permutation(len(events))
    return Written(
        pl.DataFrame(
            stays,
            schema=["patient", "stay", "start", "end", "birth", "sex", "died"],
            orient="row",
        ),
        pl.DataFrame(
            [events[i] for i in order],
            schema=["patient", "stay", "time", "name", "value", "unit"],
            orient="row",
        ).unique(["stay", "time", "name"], keep="first", maintain_order=True),
    )


TABLES_SETTINGS = """
source = "tables"
[stays]
file = "stays.{kind}"
patient = "patient"
stay = "stay"
start = "start"
end = "end"
birth = "birth"
label = "died"
[[events]]
file = "events.{kind}"
{key} = "{key}"
time = "time"
variable = "name"
value = "value"
unit = "unit"
[variables.Gender]
column = "sex"
values = {{ M = 1, F = 0 }}
"""


def write_tables(cohort: Written, folder: Path, kind: str, *, key: str = "stay") -> str:
    """Write stays and events; return the settings that read them."""
    for name, frame in (("stays", cohort.stays), ("events", cohort.events)):
        if kind == "parquet":
            frame.write_parquet(folder / f"{name}.parquet")
        else:
            frame.write_csv(folder / f"{name}.csv", datetime_format="%Y-%m-%d %H:%M:%S")
    return TABLES_SETTINGS.format(kind=kind, key=key)
