"""Guesses about a table beside recordings or images: what it names, whose they are, the outcome."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from consilium.client.sources.common.persons import same_person
from consilium.client.sources.common.tree import files_below
from consilium.client.sources.recorded.record_table import PERSON_COLUMNS, RECORD_COLUMNS
from consilium.shared.errors import DataError
from consilium.simulations.guesses.look import Look, look_at
from consilium.simulations.guesses.roles import (
    MOST_CLASSES,
    Choices,
    GuessNotes,
    is_binary,
    key_columns,
    label_of,
)
from consilium.simulations.guesses.toml_text import line, value_text
from consilium.simulations.guesses.words import YES_NO, suggests

_SHARE = 0.5  # of a column's cells that name records of the folder


@dataclass(frozen=True, kw_only=True, eq=False)
class Labels:
    """The table, its columns, and what its outcome is; ``label`` is None if none was asked for."""

    look: Look
    record: str
    person: str | None
    label: str | None
    notes: GuessNotes

    def settings(self) -> list[str]:
        """Return the lines of ``[data.labels]``."""
        lines = ["", "[data.labels]", line("file", str(self.look.path), "# guess: names records")]
        if self.look.separator not in (None, ","):
            lines.append(line("separator", self.look.separator, "# guess: it cuts every line"))
        lines.append(line("record", self.record, "# guess: its cells name what lies in the folder"))
        if self.person is not None:
            lines.append(line("person", self.person, self.notes.of("person")))
        if self.label is not None and self.label not in self.look.numbers:
            words = {one: YES_NO[one.lower()] for one in self.look.distinct(self.label)}
            lines.append(line("values", words, "# guess: these words"))
        return lines

    def task(self) -> list[str]:
        """Return the lines of ``[task]``."""
        return task_of(self.look, self.label) if self.label is not None else []


def task_of(look: Look, label: str) -> list[str]:
    """Return the lines of ``[task]`` for a column of outcomes."""
    if is_binary(look, label):
        return ['kind = "binary"  # guess: by the values']
    values = look.numbers[label].drop_nulls()
    different = sorted(values.unique().to_list())
    if different == [float(n) for n in range(len(different))] and len(different) <= MOST_CLASSES:
        return ['kind = "multiclass"  # guess: by the values', line("outputs", len(different))]
    center, spread = float(values.median() or 0.0), float(values.std() or 1.0)  # type: ignore[arg-type]
    return [
        'kind = "regression"  # guess: by the values',
        f"center = {value_text(float(f'{center:.3g}'))}  # guess: of these records",
        f"spread = {value_text(float(f'{spread:.3g}'))}  # guess: of these records",
    ]


def labels_at(
    folder: Path, names: Iterable[str], choices: Choices, *, needs_label: bool
) -> Labels | None:
    """Return the table in a folder, or beside it, whose rows name its records.

    Args:
        folder: of the records.
        names: by which a table may call them.
        choices: what the user has said.
        needs_label: whether an outcome must stand in it.

    Raises:
        SettingsError: several columns could be the outcome.
        DataError: no column could.
    """
    known = {same_person(name) for name in names}
    inside = [file for file in files_below(folder) if _is_csv(file)]
    beside = sorted(file for file in folder.parent.iterdir() if file.is_file() and _is_csv(file))
    best: tuple[float, Look, str] | None = None
    for file in [*inside[:20], *beside[:20]]:
        try:
            look = look_at(file, choices.separator)[0]
        except DataError:
            continue
        for column in look.columns:
            cells = look.texts(column).drop_nulls().head(5000).to_list()
            share = sum(same_person(cell) in known for cell in cells) / max(1, len(cells))
            usual = column.strip().casefold() in (*RECORD_COLUMNS, *PERSON_COLUMNS)
            score = share + 0.1 * usual
            if share >= _SHARE and look.encoding is None and (best is None or score > best[0]):
                best = score, look, column
    if best is None:
        return None
    _, look, record = best
    notes = GuessNotes()
    person = _person(look, record, choices, notes)
    label = None
    if needs_label:
        label = label_of(look, [record, *([person] if person else [])], choices, notes)
        if label is None:
            raise DataError(
                f"{look.path}: no column could be the outcome to predict; name it: --column "
                "label=NAME"
            )
    return Labels(look=look, record=record, person=person, label=label, notes=notes)


def _person(look: Look, record: str, choices: Choices, notes: GuessNotes) -> str | None:
    if (said := choices.columns.get("person")) is not None and said in look.columns:
        return said
    if suggests(record, "person"):
        notes.say("person", "what names the records is a person")
        return record
    found = [name for name in key_columns(look) if name != record and suggests(name, "person")]
    if len(found) == 1:
        notes.say("person", f"by its name, {found[0]!r}")
        return found[0]
    return None


def _is_csv(file: Path) -> bool:
    return file.suffix.lower() in (".csv", ".tsv", ".txt") and "readme" not in file.name.lower()
