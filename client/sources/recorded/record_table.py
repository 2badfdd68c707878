"""A table beside the records: which records a row is about, whose they are, and their label."""

import csv
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from consilium.client.sources.common.lines import bounded_lines, number
from consilium.client.sources.common.persons import same_person
from consilium.client.sources.recorded.record_settings import LabelRule, LabelsFile
from consilium.shared.errors import DataError, SettingsError
from consilium.shared.study.definition import Study

RECORD_COLUMNS = ("record", "file", "folder", "series", "examination", "study")
PERSON_COLUMNS = ("patient", "person")
_TOKEN = re.compile(r"[^\s,;|/'\"{}\[\]()]+")

Label = float | NDArray[np.float32]


@dataclass(frozen=True, repr=False)
class Row:
    """One row: the record as written, the person (empty if no column says), label and cells."""

    record: str
    person: str
    label: Label | None
    cells: Mapping[str, str] = field(default_factory=dict)

    def __repr__(self) -> str:
        return "Row()"


@dataclass(frozen=True, repr=False)
class RecordTable:
    """A table's rows by record, and what its columns are called.

    ``person`` is the column that names persons, None if there is none. ``record`` is the column
    that says which records a row is about; ``names_persons`` whether that is a column of persons.
    ``columns`` are all of them.
    """

    path: Path
    rows: Mapping[str, Row]
    record: str
    person: str | None
    names_persons: bool
    columns: tuple[str, ...]

    def __repr__(self) -> str:
        return f"RecordTable({len(self.rows)} rows)"

    def find(self, *names: str) -> Row | None:
        """Return the row of the first of these names that has one, in any case and blanks."""
        for name in names:
            if (row := self.rows.get(same_person(name))) is not None:
                return row
        return None


def read_table(settings: LabelsFile, study: Study, *, labelled: bool = True) -> RecordTable:
    """Read the table; a row without a label is kept, its outcome is unknown.

    Args:
        settings: the file and what its columns are called.
        study: gives the label's name and kind.
        labelled: whether the label stands in the table; if not, none is read.

    Raises:
        DataError: the file is no CSV in UTF-8, lacks a column, names a record twice, or has a label
            that is none.
    """
    path = settings.file
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(
                bounded_lines(file, path), strict=True, delimiter=settings.separator
            )
            columns = _Columns(settings, list(rows.fieldnames or ()), study, labelled=labelled)
            found: dict[str, Row] = {}
            for cells in rows:
                row = columns.row(cells, f"labels {path} line {rows.line_num}")
                if same_person(row.record) in found:
                    raise DataError(
                        f"labels {path} line {rows.line_num}: {columns.needs}; correct the line"
                    )
                found[same_person(row.record)] = row
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"labels {path} cannot be read as CSV in UTF-8; add the file") from error
    return RecordTable(
        path, found, columns.record, columns.person, columns.names_persons, columns.named
    )


class _Columns:
    """The columns of a table, chosen by the settings or by their usual names."""

    def __init__(
        self, settings: LabelsFile, header: list[str], study: Study, *, labelled: bool
    ) -> None:
        self._rule, self._header, self._labelled = settings, header, labelled
        usual = (*RECORD_COLUMNS, *PERSON_COLUMNS)
        lower = {name.strip().casefold(): name for name in reversed(header) if name}
        chosen = settings.record or next((lower[name] for name in usual if name in lower), None)
        if settings.person is not None and settings.record is None and chosen == settings.person:
            others = [lower[n] for n in usual if n in lower and lower[n] != settings.person]
            chosen = others[0] if others else chosen
        self.record = chosen or "patient"
        persons = [lower[name] for name in PERSON_COLUMNS if name in lower]
        spare = [name for name in persons if name != self.record]
        self.names_persons = self.record == settings.person or (
            settings.person is None and settings.record is None and self.record in persons
        )
        self.person = settings.person or (self.record if self.names_persons else None)
        if self.person is None and spare:
            self.person = spare[0]
        self._label: tuple[str, ...] = ()
        if settings.label is not None:
            self._label = (
                (settings.label,) if isinstance(settings.label, str) else tuple(settings.label)
            )
        elif study.data.label in header or not settings.codes:
            self._label = (study.data.label,)
        self._study = study
        label = " and ".join(repr(name) for name in self._label)
        self.needs = (
            f"needs columns {self.record!r} and {label} with a finite number, and each "
            f"{self.record} once"
        )

    @property
    def named(self) -> tuple[str, ...]:
        """The columns that have a name, in the file's order."""
        return tuple(name for name in self._header if name)

    def row(self, cells: Mapping[str, str | None], where: str) -> Row:
        """Return one row, checked."""
        plain = {name: (cells.get(name) or "").strip() for name in self.named}
        record = plain.get(self.record, "")
        missing = [name for name in (self.person,) if name and name not in plain]
        if not record or missing or None in cells:
            raise DataError(f"{where}: {self.needs}; correct the line")
        return Row(record, plain.get(self.person or "", ""), self._label_of(plain, where), plain)

    def _label_of(self, cells: Mapping[str, str], where: str) -> Label | None:
        if not self._labelled:
            return None
        try:
            return label_of([cells[name] for name in self._label], self._rule, self._study)
        except (KeyError, ValueError) as error:
            raise DataError(f"{where}: {self.needs}; correct the line") from error


def label_of(cells: list[str], rule: LabelRule, study: Study) -> Label | None:
    """Return the label that cells mean under a rule; None where all are empty.

    Raises:
        ValueError: a cell is no number and no word of the rule.
        SettingsError: the rule's codes are not as many as the study's outputs.
    """
    outputs = study.task.outputs
    if rule.codes:
        if len(rule.codes) != outputs:
            raise SettingsError(
                f"[data] codes are for {len(rule.codes)} outputs, and study {study.name} has "
                f"{outputs}; give a list of codes for each"
            )
        held = set(_TOKEN.findall(" ".join(cells)))
        if not held:
            return None
        held |= {token.removesuffix(":") for token in held}
        means_K = [float(bool(held & set(codes))) for codes in rule.codes]
        return np.array(means_K, dtype=np.float32) if outputs > 1 else means_K[0]
    label_K = [cell_number(cell, rule.values) for cell in cells]
    if all(math.isnan(label) for label in label_K):
        return None
    if study.task.kind == "multilabel":
        return np.array(label_K, dtype=np.float32)
    return label_K[0]


def cell_number(cell: str, values: Mapping[str, float]) -> float:
    """Return a cell's number, NaN if it is empty.

    Raises:
        ValueError: it is no finite number and no word of ``values``.
    """
    if not cell.strip():
        return math.nan
    if cell in values:
        return values[cell]
    means = {same_person(word): value for word, value in values.items()}
    if same_person(cell) in means:
        return means[same_person(cell)]
    if values:
        raise ValueError
    found = number(cell)
    if not math.isfinite(found):
        raise ValueError
    return found
