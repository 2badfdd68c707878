"""Headers of WFDB (``.hea``): what they say beside the signals, and why a record cannot be read.

https://wfdb.io/spec/header-files.html, https://wfdb.io/spec/signal-files.html
"""

import re
import zipfile
from collections.abc import Collection
from itertools import zip_longest
from pathlib import Path
from typing import Any

from consilium.client.sources.common.archives import BROKEN_ZIP
from consilium.client.sources.common.persons import same_person

LARGEST_HEADER = 1 << 20
_NUMBER = r"-?\d*\.?\d+"
# A record's name, signals, frequencies, samples, time and date; each but the first two may end it.
_FIRST_LINE = re.compile(
    rf"\S+\s+\d+(\s+{_NUMBER}(/{_NUMBER}(\({_NUMBER}\))?)?"
    r"(\s+\d+(\s+[\d:.]+(\s+\d+/\d+/\d+)?)?)?)?\s*"
)
# A name and a colon: first in a comment, or after two blanks or before "<" further on in it.
_NAME = re.compile(
    r"(?:^\s*<?([^:<>]{1,64}?)|(?:\s{2,}|\s+(?=<))<?([^\W\d][^:<>]{0,63}?))>?\s*:\s*"
)
# Age and sex as in the MIT-BIH databases: "69 M 1085 1629 x1".
_AGE_AND_SEX = re.compile(r"\s*([0-9]{1,3})\s+([MF])(?:\s[^:]*)?")
_BYTES = {
    "8": 1.0, "16": 2.0, "24": 3.0, "32": 4.0, "61": 2.0, "80": 1.0, "160": 2.0, "212": 1.5,
    "310": 4 / 3, "311": 4 / 3, "508": 0.0, "516": 0.0, "524": 0.0,
}  # fmt: skip  # of a sample, by format; FLAC is packed


def comments_of(header: Any) -> dict[str, str]:
    """Return what the header's comments say, by name in any case: ``Dx`` of ``# Dx: 426783006``.

    One comment may say several things: ``# Age: 62  Sex: M``, ``# <age>: 62 <sex>: M``. A comment
    without a name that begins with an age and a sex, as in MIT-BIH (``# 69 M 1085 1629 x1``), says
    ``age`` and ``sex``. Of two comments of one name the first counts.
    """
    found: dict[str, str] = {}
    for comment in map(str, header.comments or ()):
        names = list(_NAME.finditer(comment))
        for name, after in zip_longest(names, names[1:]):
            end = len(comment) if after is None else after.start()
            found.setdefault(same_person(name[1] or name[2]), comment[name.end() : end].strip())
        if not names and (person := _AGE_AND_SEX.fullmatch(comment)):
            found.setdefault("age", person[1])
            found.setdefault("sex", person[2])
    return found


def segments_of(path: Path) -> list[str]:
    """Return the names of a master header's segments; none of any other header."""
    try:
        lines = _lines_at(path)
    except OSError:
        return []
    return [line.split()[0] for line in lines[1:]] if _is_master(lines) else []


def signal_files(archive: Path) -> set[str]:
    """Return the names, in lower case, of the signal files that the headers in a zip name."""
    found: set[str] = set()
    try:
        with zipfile.ZipFile(archive) as opened:
            for member in opened.infolist():
                if not member.filename.lower().endswith(".hea"):
                    continue
                with opened.open(member) as file:
                    lines = _lines(file.read(LARGEST_HEADER))
                if not _is_master(lines):
                    found |= {line.split()[0].lower() for line in lines[1:]}
    except (*BROKEN_ZIP, OSError, ValueError):
        return set()  # told by whoever unpacks it
    return found


def fault_of(header: Any, path: Path, rdheader: Any) -> str:
    """Return why the signals that a header describes cannot be read, with the remedy; else "".

    Args:
        header: as the ``wfdb`` package reads it.
        path: of the header; signal files and segments lie beside it.
        rdheader: the package's function that reads a segment's header.
    """
    first = _lines_at(path)[0]
    if not _FIRST_LINE.fullmatch(first):  # the package takes what it understands of it
        return (
            f"{path.name} cannot be read as WFDB: its first line {first[:80]!r} is not a record's "
            "name, number of signals, rate and number of samples; correct it"
        )
    if (names := getattr(header, "seg_name", None)) is not None:
        return _fault_of_segments(header, names, path, rdheader)
    if not header.n_sig:
        return f"{path.name} names no signal; leave it out"
    files = [str(file) for file in header.file_name]
    if set(files) == {"~"}:
        return (
            f"{path.name} is the layout of a record of segments and has no signal of its own; name "
            "that record"
        )
    said: dict[str, float] = {}
    frames = header.samps_per_frame or [1] * len(files)
    for file, kind, samples in zip(files, header.fmt, frames, strict=True):
        if not (path.parent / file).is_file():
            return f"its file {file[:80]} is not there; add it beside {path.name}"
        if str(kind) not in _BYTES:
            return (
                f"{path.name} says format {str(kind)[:20]!r}, which is not read; convert the "
                f"record with WFDB's xform to one of {', '.join(_BYTES)}"
            )
        said[file] = said.get(file, 0.0) + _BYTES[str(kind)] * samples * (header.sig_len or 0)
    for file, least in said.items():
        offset = max(header.byte_offset[n] or 0 for n, one in enumerate(files) if one == file)
        if (path.parent / file).stat().st_size < int(least) + offset:
            return (
                f"its file {file[:80]} is shorter than {path.name} says; copy it again, or correct "
                "the number of samples in the header's first line"
            )
    return ""


def samples_said(header: Any, path: Path) -> int:
    """Return how many samples of all signals a header says, at most what its files can hold."""
    signals = int(header.n_sig or 0)
    frames = getattr(header, "samps_per_frame", None) or [1] * signals
    if header.sig_len is not None:
        return int(header.sig_len) * max(signals, sum(map(int, frames)))
    files = {str(file) for file in getattr(header, "file_name", None) or ()}
    return sum((path.parent / file).stat().st_size for file in files)


def _fault_of_segments(header: Any, names: Collection[str], path: Path, rdheader: Any) -> str:
    if header.layout == "fixed" and "~" in names:
        return (
            f"{path.name} has a gap between its segments and no layout, which is not read; write "
            "it with a layout segment, or name its segments as records"
        )
    for name in names:
        if name == "~":
            continue
        segment = path.parent / f"{name}.hea"
        if not segment.is_file():
            return f"its file {segment.name[:80]} is not there; add it beside {path.name}"
        inner = rdheader(str(segment.with_suffix("")))
        if getattr(inner, "seg_name", None) is not None:
            return f"its segment {segment.name[:80]} has segments itself; name that one as a record"
        layout = header.layout == "variable" and not inner.sig_len
        if not layout and (fault := fault_of(inner, segment, rdheader)):
            return fault
    return ""


def _lines_at(path: Path) -> list[str]:
    with path.open("rb") as file:
        return _lines(file.read(LARGEST_HEADER))


def _lines(content: bytes) -> list[str]:
    lines = content.decode("ascii", errors="replace").splitlines()
    return [line for line in lines if line.strip() and not line.lstrip().startswith("#")]


def _is_master(lines: list[str]) -> bool:
    return bool(lines) and "/" in lines[0].split()[0]
