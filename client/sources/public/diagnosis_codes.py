"""Visits with diagnosis codes: the UCI Diabetes 130-US hospitals file, as distributed.

One line per encounter (Strack et al., BioMed Res Int 2014:781670); CSV, plain or gzipped; ``?`` is
a missing value. A patient's visits, in the order of ``encounter_id``, are the steps of one
sequence; the file has no dates. Columns of codes are ``diag_1`` to ``diag_3`` (ICD-9-CM); a visit's
numbers are series variables; ``age`` (middle of its decade) and ``male`` are static.

The label ``readmitted-30`` (within 30 days) or ``readmitted`` (at all) has one value per visit, for
a per-step task.
"""

import csv
import gzip
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from consilium.client.sources.common.cleaning import Cleaner
from consilium.client.sources.common.lines import BadLines, bounded_lines, number
from consilium.client.sources.common.matrices import (
    require_label,
    require_source,
    require_task,
    require_tokens,
    require_variables,
    stay_of,
)
from consilium.client.sources.common.reasons import NOT_A_NUMBER
from consilium.client.sources.common.source import Counted, Patient, Tally
from consilium.client.sources.public.icd9 import Icd9
from consilium.shared.errors import DataError
from consilium.shared.study.definition import Study

CODES = ("diag_1", "diag_2", "diag_3")
SERIES = MappingProxyType(
    {
        "time_in_hospital": "d",
        "num_lab_procedures": "1",
        "num_procedures": "1",
        "num_medications": "1",
        "number_outpatient": "1",
        "number_emergency": "1",
        "number_inpatient": "1",
        "number_diagnoses": "1",
    }
)
STATIC = MappingProxyType({"age": "a", "male": "1"})
LABELS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"readmitted-30": ("<30",), "readmitted": ("<30", ">30")}
)
_ANSWERS = ("NO", "<30", ">30")
_LONGEST_NUMBER = 18  # digits of an encounter's id
_MISSING = ("", "?")
_NEEDED = ("encounter_id", "patient_nbr", "readmitted", "age", "gender", *CODES, *SERIES)


class DiagnosisCodes(Counted):
    """The encounters of one file, or of part of it.

    Args:
        path: the CSV, or the folder of ``diabetic_data.csv.gz``.
        where: keeps only patients whose first visit has these values, such as
            ``{"payer_code": "MC"}``.
        fewest_visits: patients with fewer visits are left out.
    """

    name = "diagnosis-codes"
    person_key = "the column patient_nbr"

    def __init__(
        self, path: Path, *, where: Mapping[str, str] | None = None, fewest_visits: int = 1
    ) -> None:
        self._path = Path(path)
        if self._path.is_dir():
            self._path = self._path / "diabetic_data.csv.gz"
        self._where, self._fewest = dict(where or {}), fewest_visits
        self._tally = Tally()

    def read_patients(self, study: Study) -> Iterator[Patient]:
        """Yield each patient with one sequence of visits, in the order of their first line.

        Of more visits than the study's window holds, the first are kept, the others counted.

        Raises:
            DataError: the file is missing or malformed, or the study asks for something not in it.
        """
        require_source(study, self.name, clock="position")
        require_label(study, self.name, LABELS)
        require_task(study, self.name, ("binary",), per_step=True)
        require_variables(study, self.name, {**SERIES, **STATIC})
        require_tokens(study, self.name, CODES)
        self._tally = Tally()
        return self._read(study)

    def _read(self, study: Study) -> Iterator[Patient]:
        cleaner, icd9 = Cleaner(study, self._tally), Icd9(study)
        visits: dict[str, dict[int, dict[str, str]]] = {}
        for visit in _visits(self._path, self._where, self._tally):
            of_patient = visits.setdefault(visit["patient_nbr"], {})
            self._tally.duplicates += int(visit["encounter_id"]) in of_patient
            of_patient[int(visit["encounter_id"])] = visit
        for patient, by_number in visits.items():
            rows = [by_number[encounter] for encounter in sorted(by_number)]
            if len(rows) < self._fewest or any(rows[0][k] != v for k, v in self._where.items()):
                self._tally.filtered += 1
                continue
            kept = rows[: study.data.steps]
            self._tally.outside_window += len(rows) - len(kept)
            value_TV = np.array([_values(visit, study, icd9, self._tally) for visit in kept])
            label_T = np.full(study.data.steps, np.nan, dtype=np.float32)
            positive = LABELS[study.data.label]
            label_T[: len(kept)] = [visit["readmitted"] in positive for visit in kept]
            self._tally.patients += 1
            self._tally.stays += 1
            stay = stay_of(
                value_TV,
                study,
                cleaner,
                stay_id=patient,
                label=label_T,
                end_h=float(len(kept)),
            )
            yield Patient(patient_id=patient, stays=(stay,))


def _values(visit: dict[str, str], study: Study, icd9: Icd9, tally: Tally) -> NDArray[np.float64]:
    """Return the study's variables and codes of one visit, NaN where missing."""
    values = []
    for name in study.variables:
        if name == "male":
            values.append({"Male": 1.0, "Female": 0.0}.get(visit["gender"], np.nan))
        elif name == "age":
            decade = visit["age"].strip("[)").split("-")
            values.append(sum(_number(end, tally) for end in decade) / len(decade))
        else:
            values.append(_number(visit[name], tally))
    codes = () if study.tokens is None else study.tokens.names
    return np.array(values + [icd9.number(visit[name]) for name in codes])


def _number(cell: str, tally: Tally) -> float:
    """Return the cell's number; NaN if missing, and if it is no number, which is counted."""
    if cell in _MISSING:
        return np.nan
    try:
        value = number(cell)
    except ValueError:
        value = np.inf
    if np.isfinite(value):
        return value
    tally.set_aside[NOT_A_NUMBER] = tally.set_aside.get(NOT_A_NUMBER, 0) + 1
    return np.nan


def _visits(path: Path, where: Mapping[str, str], tally: Tally) -> Iterator[dict[str, str]]:
    """Yield the lines of the file as dictionaries of the needed columns, checked."""
    try:
        with (
            gzip.open(path, "rt", encoding="utf-8", newline="")
            if path.suffix == ".gz"
            else path.open(encoding="utf-8", newline="")
        ) as file:
            rows = csv.reader(bounded_lines(file, path), strict=True)
            header = next(rows, [])
            needed = (*_NEEDED, *where)
            if missing := [column for column in needed if column not in header]:
                raise DataError(
                    f"file {path}: has no column {missing[0]!r}; this is not the encounters' file"
                )
            places = {column: header.index(column) for column in needed}
            bad, good = BadLines(tally), 0
            for row in rows:
                if len(row) != len(header):
                    bad.add(f"line {rows.line_num}: {len(row)} columns, not {len(header)}")
                    continue
                visit = {column: row[place] for column, place in places.items()}
                encounter = visit["encounter_id"]
                if (
                    not (encounter.isdecimal() and len(encounter) <= _LONGEST_NUMBER)
                    or visit["patient_nbr"] in _MISSING
                    or visit["readmitted"] not in _ANSWERS
                ):
                    bad.add(
                        f"line {rows.line_num}: encounter_id is no number, patient_nbr is missing, "
                        f"or readmitted is none of {', '.join(_ANSWERS)}"
                    )
                    continue
                good += 1
                yield visit
            bad.close(good, str(path))
    except (OSError, EOFError, UnicodeDecodeError, csv.Error, zlib.error) as error:
        raise DataError(
            f"file {path} cannot be read as CSV in UTF-8 text; check the path, or replace the file"
        ) from error
