"""Sealed segments of an audit log: ``audit-0001.jsonl`` and on, beside ``audit.jsonl``.

Sealing begins a new file with an entry that chains to the last one of the old file. All files
together are the log: numbers, chain and signatures run through, so checking it needs them all. A
segment is never written again, so it can be kept on a medium that cannot be.
"""

import re
from pathlib import Path

MOST = 9999


def segments(path: Path) -> list[Path]:
    """Return a log's sealed segments, oldest first; ``path`` is the file that is written.

    A file that is still the written one under a second name, as a crash amidst sealing leaves it,
    is none.
    """
    pattern = re.compile(re.escape(path.stem) + r"-\d{4}" + re.escape(path.suffix), re.ASCII)
    try:
        found = sorted(one for one in path.parent.iterdir() if pattern.fullmatch(one.name))
    except OSError:
        return []
    return [segment for segment in found if not is_same(segment, path)]


def next_segment(path: Path) -> tuple[int, Path]:
    """Return the number and the file of the segment that is sealed next."""
    known = segments(path)
    number = int(known[-1].stem[-4:]) + 1 if known else 1
    return number, path.with_name(f"{path.stem}-{number:04d}{path.suffix}")


def is_same(one: Path, other: Path) -> bool:
    """Tell whether these are two names of one file."""
    try:
        return one.samefile(other)
    except OSError:
        return False
