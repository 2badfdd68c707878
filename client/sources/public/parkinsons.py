"""Voice recordings of people with Parkinson's disease over six months: the UCI telemonitoring file.

CSV with a header, one line per recording (Tsanas et al., IEEE Trans Biomed Eng 2010;57:884-893). A
person's recordings become one sequence with one step per week: the week's mean of each measure. A
clinician scored the UPDRS at the start, after about three months and after about six; the file
interpolates linearly between these scores. So ``motor_UPDRS`` and ``total_UPDRS`` are offered as
variables for the first ``KNOWN_WEEKS`` weeks only, which end before the second scoring in
everybody. The label of a later week, from ``LABEL_WEEK`` on, is the change of the score since the
last one
offered: ``motor-change`` or ``total-change``. Carrying the last value forward predicts 0.
"""

import csv
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
from consilium.client.sources.common.source import Counted, Patient, Tally
from consilium.shared.errors import DataError
from consilium.shared.study.definition import Study

FILE = "parkinsons_updrs.data"
KNOWN_WEEKS = 12  # the scores of weeks 0 to 11 are offered
LABEL_WEEK = 14
LABELS: Mapping[str, str] = MappingProxyType(
    {"motor-change": "motor_UPDRS", "total-change": "total_UPDRS"}
)
VOICE = (
    "Jitter(%)", "Jitter(Abs)", "Jitter:RAP", "Jitter:PPQ5", "Jitter:DDP", "Shimmer",
    "Shimmer(dB)", "Shimmer:APQ3", "Shimmer:APQ5", "Shimmer:APQ11", "Shimmer:DDA", "NHR", "HNR",
    "RPDE", "DFA", "PPE",
)  # fmt: skip
UNITS = MappingProxyType(
    {
        **dict.fromkeys(VOICE, "1"),
        "motor_UPDRS": "{score}",
        "total_UPDRS": "{score}",
        "age": "a",
        "sex": "1",
    }
)
_COLUMNS = ("subject#", "age", "sex", "test_time", "motor_UPDRS", "total_UPDRS", *VOICE)


class Parkinsons(Counted):
    """The people of one file.

    Args:
        path: the file, or the folder of ``parkinsons_updrs.data``.
    """

    name = "parkinsons"
    person_key = "the column subject#"

    def __init__(self, path: Path) -> None:
        self._path = Path(path) / FILE if Path(path).is_dir() else Path(path)
        self._tally = Tally()

    def read_patients(self, study: Study) -> Iterator[Patient]:
        """Yield each person with one sequence of weeks, in the order of the file.

        Raises:
            DataError: the file is missing or malformed, or the study asks for something not in it.
        """
        require_source(study, self.name, clock="position")
        require_label(study, self.name, LABELS)
        require_task(study, self.name, ("regression",), per_step=True)
        require_variables(study, self.name, UNITS)
        require_tokens(study, self.name, ())
        self._tally = Tally()
        return self._read(study)

    def _read(self, study: Study) -> Iterator[Patient]:
        cleaner = Cleaner(study, self._tally)
        recordings: dict[float, list[NDArray[np.float64]]] = {}
        for row in _rows(self._path, self._tally):
            recordings.setdefault(row[0], []).append(row)
        for person, rows in recordings.items():
            weeks, outside = _weeks(np.stack(rows), study.data.steps)
            self._tally.outside_window += outside
            score_T = weeks[:, _COLUMNS.index(LABELS[study.data.label])]
            known = np.flatnonzero(~np.isnan(score_T[:KNOWN_WEEKS]))
            label_T = np.full(study.data.steps, np.nan, dtype=np.float32)
            if known.size:
                label_T[LABEL_WEEK:] = score_T[LABEL_WEEK:] - score_T[known[-1]]
            if np.isnan(label_T).all():
                self._tally.unlabelled += 1
                continue
            for score in LABELS.values():
                weeks[KNOWN_WEEKS:, _COLUMNS.index(score)] = np.nan
            value_TV = weeks[:, [_COLUMNS.index(name) for name in study.variables]]
            self._tally.patients += 1
            self._tally.stays += 1
            name = f"person-{person:.0f}"
            stay = stay_of(value_TV, study, cleaner, stay_id=name, label=label_T)
            yield Patient(patient_id=name, stays=(stay,))


def _weeks(rows: NDArray[np.float64], steps: int) -> tuple[NDArray[np.float64], int]:
    """Return each week's mean recording (NaN if none), and how many lie outside the weeks."""
    week_of = np.floor(rows[:, _COLUMNS.index("test_time")] / 7)
    weeks = np.full((steps, rows.shape[1]), np.nan)
    inside = (week_of >= 0) & (week_of < steps)
    for week in np.unique(week_of[inside]).astype(np.int64):
        weeks[week] = rows[week_of == week].mean(axis=0)
    return weeks, int(np.count_nonzero(~inside))


def _rows(path: Path, tally: Tally) -> Iterator[NDArray[np.float64]]:
    """Yield the file's lines as numbers, in the order of ``_COLUMNS``."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = csv.reader(bounded_lines(file, path), strict=True)
            header = next(rows, [])
            if missing := [column for column in _COLUMNS if column not in header]:
                raise DataError(
                    f"file {path}: has no column {missing[0]!r}; this is not the telemonitoring "
                    "file"
                )
            places = [header.index(column) for column in _COLUMNS]
            bad, good = BadLines(tally), 0
            for row in rows:
                try:
                    numbers = np.array([number(row[place]) for place in places])
                except (ValueError, IndexError):
                    numbers = np.array([np.nan])
                if not np.isfinite(numbers).all():
                    bad.add(f"line {rows.line_num}: a value is missing or not a finite number")
                    continue
                good += 1
                yield numbers
            bad.close(good, str(path))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            f"file {path} cannot be read as CSV in UTF-8 text; check the path, or replace the file"
        ) from error
