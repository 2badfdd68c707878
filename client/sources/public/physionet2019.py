"""The PhysioNet/Computing in Cardiology Challenge 2019: early warning of sepsis, as distributed.

One pipe-separated table per patient, one row per hour in intensive care, ``NaN`` where nothing was
measured (Reyna et al., Crit Care Med 2020;48:210-217), in a folder or a zip. ``ICULOS`` counts the
hours from 1. The label ``SepsisLabel`` is hourly, for a per-step task; it is 1 from six hours
before sepsis on. The label ``sepsis`` has one value per stay, with the hour at which sepsis began,
for windows at landmarks or before the event. Variables and units are the challenge's; ``ICULOS`` is
one of them.
"""

from collections.abc import Iterator
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from consilium.client.sources.common.archives import BadFileError, contents, leave_out
from consilium.client.sources.common.cleaning import Cleaner
from consilium.client.sources.common.matrices import (
    require_label,
    require_source,
    require_task,
    require_tokens,
    require_variables,
    stay_of,
)
from consilium.client.sources.common.reasons import BAD_LINE
from consilium.client.sources.common.source import Counted, Patient, Tally
from consilium.shared.errors import DataError
from consilium.shared.study.definition import Study

LABEL = "SepsisLabel"
STAY_LABEL = "sepsis"
SHIFT_H = 6  # hours by which the challenge's hourly label precedes sepsis
LARGEST_RECORD_BYTES = 1 << 20  # the challenge's largest is 60 KiB
UNITS = MappingProxyType(
    {
        "HR": "/min",
        "O2Sat": "%",
        "Temp": "Cel",
        "SBP": "mm[Hg]",
        "MAP": "mm[Hg]",
        "DBP": "mm[Hg]",
        "Resp": "/min",
        "EtCO2": "mm[Hg]",
        "BaseExcess": "mmol/L",
        "HCO3": "mmol/L",
        "FiO2": "1",
        "pH": "[pH]",
        "PaCO2": "mm[Hg]",
        "SaO2": "%",
        "AST": "U/L",
        "BUN": "mg/dL",
        "Alkalinephos": "U/L",
        "Calcium": "mg/dL",
        "Chloride": "mmol/L",
        "Creatinine": "mg/dL",
        "Bilirubin_direct": "mg/dL",
        "Glucose": "mg/dL",
        "Lactate": "mmol/L",
        "Magnesium": "mg/dL",
        "Phosphate": "mg/dL",
        "Potassium": "mmol/L",
        "Bilirubin_total": "mg/dL",
        "TroponinI": "ng/mL",
        "Hct": "%",
        "Hgb": "g/dL",
        "PTT": "s",
        "WBC": "10*3/uL",
        "Fibrinogen": "mg/dL",
        "Platelets": "10*3/uL",
        "Age": "a",
        "Gender": "1",
        "Unit1": "1",
        "Unit2": "1",
        "HospAdmTime": "h",
        "ICULOS": "h",
    }
)
HEADER = "|".join([*UNITS, LABEL])


class PhysioNet2019(Counted):
    """The records of one hospital system.

    Args:
        path: a folder of ``.psv`` files, or a zip of them.
    """

    name = "physionet2019"
    person_key = "the file, one a person"

    def __init__(self, path: Path) -> None:
        self._path = Path(path)
        self._tally = Tally()

    def read_patients(self, study: Study) -> Iterator[Patient]:
        """Yield one patient per file, in the order of the files' names.

        Raises:
            DataError: the records are missing or malformed, or the study asks for something not in
                them.
        """
        require_source(study, self.name)
        require_label(study, self.name, (LABEL, STAY_LABEL))
        hourly = study.data.label == LABEL
        require_task(study, self.name, ("binary",), per_step=hourly)
        require_variables(study, self.name, UNITS)
        require_tokens(study, self.name, ())
        if hourly and study.data.step_h != 1:
            raise DataError(
                f"study {study.name}: [data] step_h {study.data.step_h} must be 1, since labels "
                f"of {self.name} are hourly; set step_h = 1"
            )
        self._tally = Tally()
        return self._read(study)

    def _read(self, study: Study) -> Iterator[Patient]:
        cleaner = Cleaner(study, self._tally)
        columns = [list(UNITS).index(name) for name in study.variables]
        for file, content in contents(
            self._path, suffix=".psv", largest_bytes=LARGEST_RECORD_BYTES
        ):
            try:
                if isinstance(content, BadFileError):
                    raise content
                table, bad = _table(content)
                hours_T = table[:, -2] - 1
                label_T = table[:, -1]
                septic = bool(label_T.any())
                stay = stay_of(
                    table[:, columns],
                    study,
                    cleaner,
                    stay_id=Path(file).stem,
                    hours_T=hours_T,
                    label=_labels(label_T, hours_T, study.data.steps)
                    if study.task.per_step
                    else float(septic),
                    end_h=float(min(hours_T[-1] + 1, study.data.reach_h)),
                    outcome_h=float(hours_T[label_T.argmax()]) + SHIFT_H if septic else None,
                )
            except (BadFileError, DataError) as error:
                leave_out(file, error, study, self._tally)
                continue
            self._tally.count(BAD_LINE, bad)
            self._tally.patients += 1
            self._tally.stays += 1
            yield Patient(patient_id=stay.stay_id, stays=(stay,))


def _table(content: bytes) -> tuple[NDArray[np.float64], int]:
    """Return a file's rows (hours, columns), and how many lines cannot be read.

    Raises:
        BadFileError: the file is none of the challenge's, or more lines are bad than good.
    """
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadFileError("is not UTF-8 text") from error
    header, _, body = text.replace("\r\n", "\n").rstrip("\n").partition("\n")
    if header != HEADER:
        raise BadFileError("line 1 is not the challenge's header")
    lines = body.split("\n")
    rows = [row for row in map(_row, lines) if row is not None]
    bad = len(lines) - len(rows)
    if bad > len(rows):
        raise BadFileError(f"{bad} of its {len(lines)} lines do not hold the challenge's numbers")
    table = np.array(rows)
    hour_T, label_T = table[:, -2], table[:, -1]
    if not (hour_T >= 1).all() or not (np.diff(hour_T) > 0).all() or (hour_T % 1).any():
        raise BadFileError("ICULOS does not count up in whole hours from 1")
    if not np.isin(label_T, (0, 1)).all():
        raise BadFileError(f"{LABEL} is not 0 or 1 in every hour")
    return table, bad


def _row(line: str) -> list[float] | None:
    """Return a line's numbers, None if it has others than the header's columns, or no numbers."""
    cells = line.split("|")
    if len(cells) != HEADER.count("|") + 1 or "_" in line:
        return None
    try:
        return list(map(float, cells))
    except ValueError:
        return None


def _labels(
    label_T: NDArray[np.float64], hours_T: NDArray[np.float64], steps: int
) -> NDArray[np.float32]:
    """Return one label for each of the study's steps, NaN where there is no row."""
    labels = np.full(steps, np.nan, dtype=np.float32)
    inside_T = hours_T < steps
    labels[hours_T[inside_T].astype(np.int64)] = label_T[inside_T]
    return labels
