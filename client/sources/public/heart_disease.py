"""The UCI heart disease files of four hospitals, as distributed.

One line per patient, 14 columns without a header, ``?`` is a missing value (Janosi et al., UCI
Machine Learning Repository 1988; Detrano et al., Am J Cardiol 1989;64:304-310). A record is one
step; every variable is static. A cholesterol of 0 (all Swiss records and some others) means
missing, and so does a resting pressure of 0. A column that only names a category is offered as one
variable of 0 or 1 for each category: ``cp4`` is asymptomatic chest pain.

The label ``disease`` is 1 for any narrowing of more than one half (column 14 above 0).
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from consilium.client.sources.common.cleaning import Cleaner
from consilium.client.sources.common.lines import BadLines
from consilium.client.sources.common.lines import number as as_number
from consilium.client.sources.common.matrices import (
    require_label,
    require_source,
    require_task,
    require_tokens,
    require_variables,
    stay_of,
)
from consilium.client.sources.common.source import Counted, Patient, Tally
from consilium.shared.errors import DataError
from consilium.shared.study.definition import Study

HOSPITALS = ("cleveland", "hungarian", "switzerland", "va")
LARGEST_FILE_BYTES = 1 << 24
COLUMNS = (
    "age",
    "sex",
    "cp",
    "trestbps",
    "chol",
    "fbs",
    "restecg",
    "thalach",
    "exang",
    "oldpeak",
    "slope",
    "ca",
    "thal",
    "num",
)
UNITS = MappingProxyType(
    {
        "age": "a",
        "sex": "1",
        "trestbps": "mm[Hg]",
        "chol": "mg/dL",
        "fbs": "1",
        "thalach": "/min",
        "exang": "1",
        "oldpeak": "mm",
        "ca": "1",
    }
)
CATEGORIES: Mapping[str, tuple[int, ...]] = MappingProxyType(
    {"cp": (1, 2, 3, 4), "restecg": (0, 1, 2), "slope": (1, 2, 3), "thal": (3, 6, 7)}
)
_FLAGS = {f"{name}{value}": (name, value) for name, known in CATEGORIES.items() for value in known}
_ZERO_IS_MISSING = ("trestbps", "chol")


class HeartDisease(Counted):
    """One hospital's file, or the file of ``hospital`` in a folder of them.

    Args:
        path: a file such as ``processed.va.data``, or its folder.
        hospital: one of ``HOSPITALS``, needed for a folder.
    """

    name = "heart-disease"
    person_key = "the line, one a person"

    def __init__(self, path: Path, *, hospital: str | None = None) -> None:
        self._path = Path(path)
        if self._path.is_dir():
            if hospital not in HOSPITALS:
                raise DataError(
                    f"data {self._path} is a folder; name a hospital, one of {', '.join(HOSPITALS)}"
                )
            self._path = self._path / f"processed.{hospital}.data"
        self._tally = Tally()

    def read_patients(self, study: Study) -> Iterator[Patient]:
        """Yield one patient per line, in the file's order.

        Raises:
            DataError: the file is missing or malformed, or the study asks for something not in it.
        """
        require_source(study, self.name, clock="position")
        require_label(study, self.name, ("disease",))
        require_task(study, self.name, ("binary",), per_step=False)
        require_variables(study, self.name, {**UNITS, **dict.fromkeys(_FLAGS, "1")})
        require_tokens(study, self.name, ())
        self._tally = Tally()
        return self._read(study)

    def _read(self, study: Study) -> Iterator[Patient]:
        cleaner, bad = Cleaner(study, self._tally), BadLines(self._tally)
        for number, line in enumerate(_lines(self._path), start=1):
            if not line.strip():
                continue
            try:
                row = _row(line)
            except DataError as error:
                bad.add(f"line {number}: {error}")
                continue
            self._tally.patients += 1
            self._tally.stays += 1
            stay_id = f"{self._path.stem}-{number}"
            stay = stay_of(
                _values(row, study)[None, :],
                study,
                cleaner,
                stay_id=stay_id,
                label=float(row[-1] > 0),
            )
            yield Patient(patient_id=stay_id, stays=(stay,))
        bad.close(self._tally.patients, str(self._path))


def _lines(path: Path) -> list[str]:
    try:
        if path.stat().st_size > LARGEST_FILE_BYTES:
            raise DataError(f"file {path} is larger than {LARGEST_FILE_BYTES} bytes; check it")
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"file {path} cannot be read as UTF-8 text; check the path") from error


def _row(line: str) -> NDArray[np.float64]:
    """Return the line's 14 numbers, NaN where missing."""
    cells = line.split(",")
    if len(cells) != len(COLUMNS):
        raise DataError(f"{len(cells)} columns, not {len(COLUMNS)}; mend the line")
    try:
        row = np.array([np.nan if cell.strip() == "?" else as_number(cell) for cell in cells])
    except ValueError as error:
        raise DataError("a value is neither a number nor '?'; mend the line") from error
    if np.isinf(row).any() or np.isnan(row[-1]) or row[-1] not in range(5):
        raise DataError("a value is infinite, or the last is not 0 to 4; mend the line")
    for column, known in CATEGORIES.items():
        value = row[COLUMNS.index(column)]
        if not np.isnan(value) and value not in known:
            raise DataError(f"{column} is none of {', '.join(map(str, known))}; mend the line")
    for column in _ZERO_IS_MISSING:
        place = COLUMNS.index(column)
        row[place] = np.nan if row[place] == 0 else row[place]
    return row


def _values(row: NDArray[np.float64], study: Study) -> NDArray[np.float64]:
    """Return the values of the study's variables."""
    values = []
    for name in study.variables:
        column, category = _FLAGS.get(name, (name, None))
        value = row[COLUMNS.index(column)]
        values.append(value if category is None or np.isnan(value) else float(value == category))
    return np.array(values)
