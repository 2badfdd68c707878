"""Molecules as SMILES in a CSV, one line per molecule; no chemistry package is needed.

A SMILES text is cut into atoms, bonds, rings and branches by the regular expression of Schwaller
et al. (ACS Cent Sci 2019;5:1572-1583); each token is one step of a sequence, in the column of codes
``token``. Two series variables describe the token's position: ``branch`` is the number of open
branches, ``ring`` the number of open rings. No person is in these records: the unit ("patient") is
a compound, the lines with the same SMILES, or with the same entry in the column of compounds.

The label is a column of the CSV; for a multilabel task, several joined by ``+`` (``NR-AR+NR-AhR``).
An empty cell is an unknown outcome.
"""

import csv
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from consilium.client.sources.common.cleaning import Cleaner
from consilium.client.sources.common.lines import BadLines, bounded_lines, number
from consilium.client.sources.common.matrices import (
    require_source,
    require_task,
    require_tokens,
    require_variables,
    stay_of,
)
from consilium.client.sources.common.source import Counted, Patient, Stay, Tally
from consilium.shared.errors import DataError
from consilium.shared.study.definition import Study
from consilium.shared.study.input_names import UNKNOWN_TOKEN, token_numbers

TOKEN = "token"  # noqa: S105 - the name of a column, not a secret
VARIABLES = MappingProxyType({"branch": "1", "ring": "1"})
_TOKEN = re.compile(
    r"\[[^\]]+\]|Br?|Cl?|N|O|S|P|F|I|b|c|n|o|s|p|\(|\)|\.|=|#|-|\+|\\|/|:|~|@|\?|>|\*|\$|%\d\d|\d"
)
_RING = re.compile(r"%\d\d|\d")


class Molecules(Counted):
    """The molecules of one CSV.

    Args:
        path: the CSV, with a header.
        column: the column of the SMILES; by default ``smiles``, in upper or lower case.
        compound: the column whose entries say which lines are one compound, such as an InChIKey.
    """

    name = "molecules"

    def __init__(
        self, path: Path, *, column: str | None = None, compound: str | None = None
    ) -> None:
        self._path, self._column, self._compound = Path(path), column, compound
        self._tally = Tally()

    def read_patients(self, study: Study) -> Iterator[Patient]:
        """Yield one patient per distinct SMILES, its lines as stays, in the order of the file.

        Tokens beyond the study's window are left out and counted.

        Raises:
            DataError: the file is missing or malformed, or the study asks for something not in it.
        """
        require_source(study, self.name, clock="position")
        labels = study.data.label.split("+")
        require_task(
            study,
            self.name,
            ("binary", "regression") if len(labels) == 1 else ("multilabel",),
            per_step=False,
            outputs=len(labels),
        )
        require_variables(study, self.name, VARIABLES)
        require_tokens(study, self.name, (TOKEN,))
        self._tally = Tally()
        return self._read(study, labels)

    def stay_column(self, column: str) -> Mapping[str, str]:
        """Return a column of the CSV by line; see :class:`.WithColumns`."""
        rows = self._table(BadLines(Tally()))
        _, header = next(rows, (0, list[str]()))
        if column not in header:
            raise DataError(
                f"file {self._path}: has no column {column!r} among its {len(header)}; correct the "
                "name"
            )
        place = header.index(column)
        return {f"line {line}": cells[place].strip() for line, cells in rows}

    def _read(self, study: Study, labels: list[str]) -> Iterator[Patient]:
        cleaner, numbers = Cleaner(study, self._tally), token_numbers(study)
        stays: dict[str, list[Stay]] = {}
        key = f"the column {self._compound!r}" if self._compound else "the SMILES"
        self._tally.person_key = f"{key}: a compound counts as a patient"
        for line, tokens, compound, label_K in self._lines(labels, study):
            if np.isnan(label_K).all():
                self._tally.unlabelled += 1
                continue
            self._tally.outside_window += max(0, len(tokens) - study.data.steps)
            tokens = tokens[: study.data.steps]
            value_TV = _values(tokens, study, numbers)
            self._tally.stays += 1
            stay = stay_of(
                value_TV,
                study,
                cleaner,
                stay_id=f"line {line}",
                label=label_K if len(labels) > 1 else float(label_K[0]),
                end_h=float(len(tokens)),
            )
            stays.setdefault(compound, []).append(stay)
        for compound, of_molecule in stays.items():
            self._tally.patients += 1
            yield Patient(patient_id=compound, stays=tuple(of_molecule))

    def _lines(
        self, labels: list[str], study: Study
    ) -> Iterator[tuple[int, list[str], str, NDArray[np.float32]]]:
        """Yield number, tokens, compound and labels of each line that can be read."""
        bad, good = BadLines(self._tally), 0
        rows = self._table(bad)
        _, header = next(rows, (0, list[str]()))
        places = self._places(header, labels)
        for line, row in rows:
            where = f"line {line}"
            smiles, compound, *cells = (row[place].strip() for place in places)
            tokens = tokenise(smiles)
            if tokens is None:
                bad.add(f"{where}: the SMILES has characters that are no token")
                continue
            if self._compound and not compound:
                bad.add(f"{where}: names no compound")
                continue
            try:
                label_K = _labels(cells, study, where)
            except DataError as error:
                bad.add(str(error))
                continue
            good += 1
            yield line, tokens, compound, label_K
        bad.close(good, str(self._path))

    def _table(self, bad: BadLines) -> Iterator[tuple[int, list[str]]]:
        """Yield number and cells of the header and of each line that has as many cells."""
        try:
            with self._path.open(encoding="utf-8", newline="") as file:
                rows = csv.reader(bounded_lines(file, self._path), strict=True)
                header: list[str] | None = None
                for row in rows:
                    header = row if header is None else header
                    if len(row) != len(header):
                        bad.add(f"line {rows.line_num}: {len(row)} columns, not {len(header)}")
                        continue
                    yield rows.line_num, row
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise DataError(
                f"file {self._path} cannot be read as CSV in UTF-8 text; check the path, or "
                "replace the file"
            ) from error

    def _places(self, header: list[str], labels: list[str]) -> list[int]:
        column = self._column or next((c for c in header if c.lower() == "smiles"), "smiles")
        wanted = (column, self._compound or column, *labels)
        for name in wanted:
            if name not in header:
                raise DataError(
                    f"file {self._path}: has no column {name!r} among its {len(header)}; correct "
                    "[data] label, or say the SMILES' column in site.toml"
                )
        return [header.index(name) for name in wanted]


def tokenise(smiles: str) -> list[str] | None:
    """Cut a SMILES text into tokens; None if something is left over."""
    tokens = _TOKEN.findall(smiles)
    return tokens if tokens and "".join(tokens) == smiles else None


def _values(tokens: list[str], study: Study, numbers: dict[str, int]) -> NDArray[np.float64]:
    """Return variables and codes of the tokens (T, V)."""
    branch, open_rings, columns = 0, set[str](), {"branch": [0.0] * 0, "ring": [0.0] * 0}
    for token in tokens:
        branch += (token == "(") - (token == ")")  # noqa: S105 - no secret
        if _RING.fullmatch(token):
            open_rings ^= {token}
        columns["branch"].append(float(branch))
        columns["ring"].append(float(len(open_rings)))
    coded = [float(numbers.get(token, UNKNOWN_TOKEN)) for token in tokens]
    every = [columns[name] for name in study.variables]
    return np.array(every + ([coded] if study.tokens is not None else [])).T


def _labels(cells: list[str], study: Study, where: str) -> NDArray[np.float32]:
    try:
        label_K = np.array([np.nan if not cell.strip() else number(cell) for cell in cells])
    except ValueError as error:
        raise DataError(f"{where}: a label is not a number") from error
    known = label_K[~np.isnan(label_K)]
    if np.isinf(known).any() or (
        study.task.kind != "regression" and not np.isin(known, (0, 1)).all()
    ):
        raise DataError(f"{where}: a label is not 0 or 1; choose another label or task")
    return label_K.astype(np.float32)
