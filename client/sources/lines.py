"""Lines of a text file, bounded, so that what is no table ends in a sentence and not in memory."""

from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from shared.errors import DataError

LARGEST_LINE = 1 << 16
MOST_LINES = 10_000_000


def bounded_lines(file: TextIO, path: Path) -> Iterator[str]:
    """Yield a text file's lines, as long as they are lines: a bomb in a gzip ends here.

    Raises:
        DataError: a line is too long, or there are too many.
    """
    number = 0
    while line := file.readline(LARGEST_LINE + 1):
        number += 1
        if len(line) > LARGEST_LINE or number > MOST_LINES:
            raise DataError(
                f"file {path} line {number}: longer than {LARGEST_LINE} characters, or beyond "
                f"{MOST_LINES} lines; check the file"
            )
        yield line
