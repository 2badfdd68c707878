"""The PhysioNet/Computing in Cardiology Challenge 2012, read as distributed.

One text file per stay (``Time,Parameter,Value``; time as hh:mm since admission to intensive care;
-1 in a general descriptor means missing), in a folder or a zip, with ``Outcomes-a.txt`` beside
it. Silva et al., Comput Cardiol 2012;39:245-248. The challenge has one stay per patient.

``ICUType`` (1 coronary, 2 cardiac surgery, 3 medical, 4 surgical) is offered as four static
variables ``ICUType1`` to ``ICUType4`` of value 0 or 1, because its number is only a name.

A study of survival has the label ``Survival``, days from admission to intensive care to a recorded
death, wherever it happened; -1 means that none was recorded. Deaths are recorded until years after
the stay, so a stay without one counts as survived, up to ``LAST_DAY``. A few stays have other
numbers below 0; nobody knows what happened to them.
"""

import difflib
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from consilium.client.sources.common.archives import BadFileError, leave_out, members
from consilium.client.sources.common.cleaning import Cleaner
from consilium.client.sources.common.reasons import BAD_LINE
from consilium.client.sources.common.source import CountedWithoutLabels, Patient, Stay, Tally
from consilium.shared.errors import DataError
from consilium.shared.study.definition import Study
from consilium.shared.study.dictionary import KNOWN
from consilium.shared.study.survival import interval_labels

Label = float | NDArray[np.float32]

HEADER = "Time,Parameter,Value"
LARGEST_RECORD_BYTES = 1 << 20  # the challenge's largest is under 32 KiB; refuses a zip bomb
LAST_MINUTE = 48 * 60
SURVIVAL, LAST_DAY = "Survival", 365.0
DESCRIPTORS = frozenset({"RecordID", "Age", "Gender", "Height", "ICUType", "Weight"})
ICU_TYPES = {f"ICUType{number}": float(number) for number in (1, 2, 3, 4)}
_IGNORED, _RECORD_ID, _ICU_TYPE = -1, -2, -3  # parameters that are not variables of the study


@dataclass(frozen=True, kw_only=True)
class _Layout:
    """The study in terms of the challenge's files; built once per reading."""

    code_of: Mapping[str, int]  # parameter -> index in the study's variables, or _IGNORED ...
    hour_of: Mapping[str, float]  # "hh:mm" -> hours
    descriptors: frozenset[int]  # indices whose -1 means missing
    icu_indices: Mapping[int, float]  # index of ICUTypeK in the study -> K
    statics: Mapping[int, str]


class PhysioNet2012(CountedWithoutLabels):
    """One set of the challenge.

    Args:
        path: a folder of records, a zip of them, or a folder with ``set-a.zip`` (or a folder
            ``set-a``) and ``Outcomes-a.txt``.
        which: the set, "a", "b" or "c", if ``path`` does not determine it.
        where: keeps only stays whose descriptors have these values, e.g. ``{"ICUType": 1}``.
    """

    name = "physionet2012"
    person_key = "RecordID (the challenge has one stay a person)"

    def __init__(
        self, path: Path, *, which: str = "a", where: Mapping[str, float] | None = None
    ) -> None:
        self._path = Path(path)
        named = re.search(r"set-([abc])(?:\.zip)?$", self._path.name)
        self._which = named.group(1) if named else which
        self._where = dict(where or {})
        self._tally = Tally()
        unknown = set(self._where) - DESCRIPTORS
        if unknown:
            raise DataError(
                f"physionet2012: cannot select stays by {sorted(unknown)[0]!r}; "
                f"use one of {', '.join(sorted(DESCRIPTORS))}"
            )

    def read_patients(self, study: Study) -> Iterator[Patient]:
        """Yield one patient per record, in the order of the files' names.

        Raises:
            DataError: folder, zip, outcomes or label column is missing; the study has a variable
                or unit that the challenge does not have; or a file is bad and the study says
                ``on_bad_file = "refuse"``.
        """
        layout = _lay_out(study)
        records = _find_records(self._path, self._which)
        outcomes = None
        if self._labelled:
            outcomes = _read_outcomes(_find_outcomes(self._path, self._which), study)
        self._tally = Tally()
        return self._read(records, outcomes, layout, study)

    def _read(
        self, records: Path, outcomes: Mapping[str, Label] | None, layout: _Layout, study: Study
    ) -> Iterator[Patient]:
        cleaner = Cleaner(study, self._tally)
        filters = {
            name: re.compile(rf"^00:00,{name},(-?[0-9]+(?:\.[0-9]+)?)\s*$".encode(), re.MULTILINE)
            for name in self._where
        }
        seen: set[str] = set()
        for file, content in _contents(records):
            try:
                if isinstance(content, BadFileError):
                    raise content
                if not self._selects(content, filters):
                    self._tally.filtered += 1
                    continue
                stay, bad = _parse_record(content, outcomes, layout, cleaner)
                if stay.stay_id in seen:
                    raise BadFileError("its RecordID was already read from another file")
            except BadFileError as error:
                leave_out(file, error, study, self._tally)
                continue
            seen.add(stay.stay_id)
            self._tally.count(BAD_LINE, bad)
            if self._labelled and np.isnan(stay.label).all():
                self._tally.unlabelled += 1
                continue
            self._count(stay, layout)
            yield Patient(patient_id=stay.stay_id, stays=(stay,))

    def _selects(self, content: bytes, filters: Mapping[str, re.Pattern[bytes]]) -> bool:
        for name, pattern in filters.items():
            found = pattern.search(content)
            if found is None:
                raise BadFileError(f"it has no {name} at 00:00, by which stays are selected")
            if float(found.group(1)) != self._where[name]:
                return False
        return True

    def _count(self, stay: Stay, layout: _Layout) -> None:
        self._tally.patients += 1
        self._tally.stays += 1
        present = set(stay.variable_E.tolist())
        for index, name in layout.statics.items():
            if index not in present:
                self._tally.missing_static[name] = self._tally.missing_static.get(name, 0) + 1


def _lay_out(study: Study) -> _Layout:
    """Check that the challenge has what the study asks for, in the same units."""
    if study.data.source != PhysioNet2012.name:
        raise DataError(
            f"study {study.name} wants source {study.data.source!r}, but these data are "
            f"{PhysioNet2012.name!r}; choose the matching data or study"
        )
    task = study.task
    if task.kind == "survival" and study.data.label != SURVIVAL:
        raise DataError(
            f"physionet2012: label {study.data.label!r} is no time of survival; set [data] label "
            f"to {SURVIVAL!r}, or another [task] kind"
        )
    if task.kind == "survival" and (task.cuts[-1] > LAST_DAY or task.time_unit != "days"):
        raise DataError(
            f"physionet2012: survival until {task.cuts[-1]:g} {task.time_unit}, and deaths are "
            f"surely recorded for {LAST_DAY:g} days; lower [task] cuts"
        )
    if task.kind == "multilabel" or task.per_step:
        raise DataError(
            "physionet2012 has one outcome a stay, so it cannot serve a multilabel or per-step "
            "task; choose another task or source"
        )
    code_of = dict.fromkeys(KNOWN, _IGNORED) | {"RecordID": _RECORD_ID, "ICUType": _ICU_TYPE}
    offered = {name: known.declaration.unit for name, known in KNOWN.items()}
    offered |= dict.fromkeys(ICU_TYPES, "1")
    for index, (name, spec) in enumerate(study.variables.items()):
        if name not in offered:
            folded = {known.casefold(): known for known in offered}
            near = difflib.get_close_matches(name.casefold(), folded, n=1, cutoff=0.0)[0]
            raise DataError(
                f"physionet2012 has no variable {name!r}; did you mean {folded[near]!r}, "
                "or remove it from the study"
            )
        if spec.unit != offered[name]:
            raise DataError(
                f"variable {name}: the study wants unit {spec.unit!r}, physionet2012 has "
                f"{offered[name]!r}; state the range, center and spread in that unit"
            )
        code_of[name] = index
    names = list(study.variables)
    hours = {f"{m // 60:02d}:{m % 60:02d}": m / 60 for m in range(LAST_MINUTE + 1)}
    return _Layout(
        code_of={name: code for name, code in code_of.items() if name not in ICU_TYPES},
        hour_of=hours,
        descriptors=frozenset(names.index(name) for name in DESCRIPTORS & set(names)),
        icu_indices={names.index(k): v for k, v in ICU_TYPES.items() if k in names},
        statics={i: n for i, n in enumerate(names) if study.variables[n].role == "static"},
    )


def _find_records(path: Path, which: str) -> Path:
    """Return the zip or folder of the records themselves."""
    if not path.exists():
        raise DataError(f"data {path} does not exist; check the path")
    if path.is_file():
        return path
    for candidate in (path / f"set-{which}.zip", path / f"set-{which}"):
        if candidate.exists():
            return candidate
    if any(_record_files(path)):
        return path
    raise DataError(
        f"data {path} holds neither set-{which}.zip, nor a folder set-{which}, nor .txt records; "
        "point at the challenge's files"
    )


def _record_files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.glob("*.txt") if not p.name.startswith("Outcomes"))


def _find_outcomes(path: Path, which: str) -> Path:
    folder = path.parent if path.is_file() else path
    name = f"Outcomes-{which}.txt"
    for candidate in (folder / name, folder.parent / name):
        if candidate.is_file():
            return candidate
    raise DataError(f"outcomes {folder / name} not found; put the file beside the records")


def _read_outcomes(path: Path, study: Study) -> dict[str, Label]:
    """Return the label of each RecordID, NaN if the outcome is not known."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"outcomes {path} cannot be read as UTF-8 text; replace it") from error
    columns = lines[0].split(",") if lines else []
    if study.data.label not in columns[1:] or columns[0] != "RecordID":
        raise DataError(
            f"outcomes {path} have no column {study.data.label!r}; set [data] label to one of "
            f"{', '.join(columns[1:]) or 'its columns (it has none)'}"
        )
    column = columns.index(study.data.label)
    outcomes: dict[str, Label] = {}
    for number, line in enumerate(lines[1:], start=2):
        cells = line.split(",")
        where = f"outcomes {path} line {number}"
        if len(cells) != len(columns):
            raise DataError(f"{where}: {len(cells)} columns, not {len(columns)}; mend the line")
        if cells[0] in outcomes:
            raise DataError(f"{where}: its RecordID occurs twice; remove one of the lines")
        outcomes[cells[0]] = _label(cells[column], study, where)
    return outcomes


def _label(cell: str, study: Study, where: str) -> Label:
    try:
        value = float(cell)
    except ValueError as error:
        raise DataError(f"{where}: the label is not a number; mend the line") from error
    kind, classes = study.task.kind, max(2, study.task.outputs)
    if kind == "survival":
        died = float(value != -1)
        time = math.inf if value == -1 else value if value >= 0 else math.nan
        event = math.nan if math.isnan(time) else died
        label_NK = interval_labels(np.array([time]), np.array([event]), study.task, where)
        return np.asarray(label_NK[0])
    if value == -1:
        return float("nan")
    if kind != "regression" and (value not in range(classes)):
        raise DataError(
            f"{where}: the label is not a class from 0 to {classes - 1}; choose another "
            "[data] label or [task] kind"
        )
    if not np.isfinite(value):
        raise DataError(f"{where}: the label is not finite; mend the line")
    return value


def _contents(records: Path) -> Iterator[tuple[str, bytes | BadFileError]]:
    """Yield file name and bytes of every record, in the order of names."""
    if records.is_dir():
        too_large = BadFileError(f"is larger than {LARGEST_RECORD_BYTES} bytes")
        for path in _record_files(records):
            large = path.stat().st_size > LARGEST_RECORD_BYTES
            yield str(path), too_large if large else path.read_bytes()
        return
    for name, content in members(records, suffix=".txt", largest_bytes=LARGEST_RECORD_BYTES):
        yield f"{records.name}/{name}", content


def _parse_record(
    content: bytes, outcomes: Mapping[str, Label] | None, layout: _Layout, cleaner: Cleaner
) -> tuple[Stay, int]:
    """Turn one record's bytes into a stay; return also how many lines cannot be read.

    The whole file is split at once, line ends being cells of their own: all rows are well formed if
    exactly every fourth cell is a line end. Only if that fails is the file read line by line, to
    set aside the lines that are no rows.

    Raises:
        BadFileError: the file is none of the challenge's, or more lines are bad than good.
    """
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadFileError("is not UTF-8 text") from error
    text = text.replace("\r\n", "\n").rstrip("\n")
    header, _, body = text.partition("\n")
    if header != HEADER:
        raise BadFileError(f"line 1 is not the header {HEADER!r}")
    rows, bad = _cells(body, layout), 0
    if rows is None:
        lines = body.split("\n")
        good = [line for line in lines if not _fault(line, layout)]
        bad = len(lines) - len(good)
        rows = _cells("\n".join(good), layout) if bad <= len(good) else None
    if rows is None:
        raise BadFileError(_first_fault(body, layout))
    hours, codes, values = rows
    code_E = np.array(codes, dtype=np.int16)
    record_id = _descriptor(code_E, values, _RECORD_ID)
    if record_id is None:
        raise BadFileError("has no RecordID, or several")
    stay_id = f"{record_id:.0f}"
    if outcomes is not None and stay_id not in outcomes:
        raise BadFileError("has no line in the outcomes")
    hours_E, variable_E, value_E = _events(code_E, np.array(hours), values, layout)
    hours_E, variable_E, value_E = cleaner.clean(hours_E, variable_E, value_E)
    label = float("nan") if outcomes is None else outcomes[stay_id]
    stay = Stay(
        stay_id=stay_id, hours_E=hours_E, variable_E=variable_E, value_E=value_E, label=label
    )
    return stay, bad


def _cells(body: str, layout: _Layout) -> tuple[list[float], list[int], NDArray[np.float64]] | None:
    """Return hours, codes and values of rows that are all well formed, else None."""
    cells = body.replace("\n", ",\n,").split(",")
    try:
        if any(cell != "\n" for cell in cells[3::4]) or len(cells) % 4 != 3 or "_" in body:
            return None
        hours = list(map(layout.hour_of.__getitem__, cells[0::4]))
        codes = list(map(layout.code_of.__getitem__, cells[1::4]))
        values = np.array(list(map(float, cells[2::4])))
    except (ValueError, KeyError):
        return None
    return (hours, codes, values) if np.isfinite(values).all() else None


def _fault(line: str, layout: _Layout) -> str:
    """Return why a line is not a row of the challenge, without quoting it; empty if it is one."""
    cells = line.split(",")
    if len(cells) != 3:
        return f"has {len(cells)} columns, not 3"
    time, parameter, value = cells
    if time not in layout.hour_of:
        return "the time is not hh:mm from 00:00 to 48:00"
    if parameter not in layout.code_of:
        return "the parameter is not one of the challenge's"
    try:
        finite = np.isfinite(float(value)) and "_" not in value
    except ValueError:
        finite = False
    return "" if finite else "the value is not a finite number"


def _first_fault(body: str, layout: _Layout) -> str:
    """Name the first line that is not a row of the challenge, without quoting it."""
    for number, line in enumerate(body.split("\n"), start=2):
        if fault := _fault(line, layout):
            return f"line {number}: {fault}, like most of its lines"
    return "has lines that end in unusual ways"


def _descriptor(code_E: NDArray[np.int16], values: NDArray[np.float64], code: int) -> float | None:
    """Return the value of a parameter if it occurs exactly once, else None."""
    found = values[code_E == code]
    return float(found[0]) if len(found) == 1 else None


def _events(
    code_E: NDArray[np.int16],
    hours_E: NDArray[np.float64],
    value_E: NDArray[np.float64],
    layout: _Layout,
) -> tuple[NDArray[np.float32], NDArray[np.int16], NDArray[np.float32]]:
    """Return the events of the study's variables, without the -1 of missing descriptors."""
    wanted_E = code_E >= 0
    missing_E = wanted_E & (value_E == -1) & (hours_E == 0)
    if missing_E.any():
        missing_E &= np.isin(code_E, list(layout.descriptors))
        wanted_E &= ~missing_E
    hours, codes, values = hours_E[wanted_E], code_E[wanted_E], value_E[wanted_E]
    if layout.icu_indices:
        icu_type = _descriptor(code_E, value_E, _ICU_TYPE)
        if icu_type is not None:
            flags = [float(icu_type == number) for number in layout.icu_indices.values()]
            hours = np.concatenate([hours, np.zeros(len(flags))])
            codes = np.concatenate([codes, np.array(list(layout.icu_indices), dtype=np.int16)])
            values = np.concatenate([values, flags])
    return hours.astype(np.float32), codes, values.astype(np.float32)
