"""Lines and numbers of a text file; a file that is no table is refused before it fills memory."""

from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

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


def number(cell: str) -> float:
    """Return the number in a cell, as other programs would read it.

    Raises:
        ValueError: the cell is no number; neither is 1_000, which Python reads as a thousand.
    """
    if "_" in cell:
        raise ValueError
    return float(cell)
