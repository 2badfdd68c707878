"""Lines and numbers of a text file; a file that is no table is refused before it fills memory."""

from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from consilium.client.sources.common.reasons import BAD_LINE
from consilium.client.sources.common.source import Tally
from consilium.shared.errors import DataError

LARGEST_LINE = 1 << 16
MOST_LINES = 10_000_000
MOST_CHARACTERS = 1 << 30


def bounded_lines(file: TextIO, path: Path) -> Iterator[str]:
    """Yield a text file's lines; a gzip bomb is stopped here.

    Raises:
        DataError: a line is too long, or there are too many lines.
    """
    number = total = 0
    while line := file.readline(LARGEST_LINE + 1):
        number += 1
        total += len(line)
        if len(line) > LARGEST_LINE or number > MOST_LINES or total > MOST_CHARACTERS:
            raise DataError(
                f"file {path} line {number}: longer than {LARGEST_LINE} characters, or beyond "
                f"{MOST_LINES} lines or {MOST_CHARACTERS} characters in all; check the file"
            )
        yield line


class BadLines:
    """Sets aside the lines of a file that cannot be read, unless they are most of it.

    One odd line must not cost a file, and a file of odd lines is another kind of file.
    """

    def __init__(self, tally: Tally) -> None:
        self._tally, self._first = tally, ""
        self.number = 0

    def add(self, fault: str) -> None:
        """Set one line aside; ``fault`` names the line and what is wrong, without quoting it."""
        self._first = self._first or fault
        self.number += 1

    def close(self, good: int, file: str) -> None:
        """Count the lines set aside, now that so many good ones are known.

        Raises:
            DataError: more lines were set aside than were good.
        """
        if self.number > good:
            raise DataError(
                f"file {file} {self._first}, and {self.number} of its {self.number + good} lines "
                "cannot be read; is it another kind of file?"
            )
        self._tally.count(BAD_LINE, self.number)


def number(cell: str) -> float:
    """Return the number in a cell, as other programs would read it.

    Raises:
        ValueError: the cell is no number; neither is 1_000, which Python reads as a thousand.
    """
    if "_" in cell:
        raise ValueError
    return float(cell)
