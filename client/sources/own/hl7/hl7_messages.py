"""HL7 version 2 messages in files: one message in memory, whatever holds them.

A file may hold one message or many, each in the frame of MLLP or not, in batches (FHS, BHS) or not,
with lines that end in any way. A message's own separators and escapes count. HL7, "Version 2.5.1",
chapters 2 (control) and 2.A (data types).
"""

import gzip
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from consilium.shared.errors import DataError

ENDINGS = (".hl7", ".er7", ".msg", ".adt", ".oru", ".txt", ".dat")
LONGEST_MESSAGE = 8 << 20  # bytes; longer than a report with a picture as text
PIECE_BYTES = 1 << 20
_LINES = re.compile(rb"[\r\n\x0b\x1c]+")  # ends of segments, and the frame of MLLP
_ENVELOPE = (b"FHS", b"BHS", b"BTS", b"FTS")
_CHARACTER_SETS = {"ASCII": "ascii", "UNICODE UTF-8": "utf-8", "UNICODE": "utf-8"}
_ESCAPE = re.compile(r"X[0-9A-Fa-f]+|[FSTREH]|N|\.[a-z]{2}[+-]?\d*")


@dataclass(frozen=True, eq=False, repr=False)
class Message:
    """One message: its segments as lists of fields, and its separators.

    Attributes:
        segments: fields by their number in the standard; of MSH too.
        marks: separators of fields, components, repetitions, escapes and subcomponents.
    """

    segments: tuple[list[str], ...]
    marks: str

    @property
    def kind(self) -> str:
        """The message's type, such as ``ADT``."""
        return self.parts(self.field(self.segments[0], 9))[0]

    @property
    def event(self) -> str:
        """What triggered it, such as ``A01``."""
        parts = self.parts(self.field(self.segments[0], 9))
        return parts[1] if len(parts) > 1 else self.first("EVN", 1)

    def all(self, name: str) -> Iterator[list[str]]:
        """Yield the segments of a name, in order."""
        return (one for one in self.segments if one[0] == name)

    def first(self, name: str, number: int) -> str:
        """Return a field of the first segment of a name, empty if there is none."""
        return next((self.field(one, number) for one in self.all(name)), "")

    @staticmethod
    def field(segment: list[str], number: int) -> str:
        """Return a field as written, empty if it is absent or HL7's null."""
        found = segment[number].strip() if number < len(segment) else ""
        return "" if found == '""' else found

    def repetitions(self, field: str) -> list[str]:
        """Return what is repeated in a field."""
        return field.split(self.marks[2]) if self.marks[2:3] else [field]

    def parts(self, field: str) -> list[str]:
        """Return a field's components, of the first repetition."""
        return [self.text(one) for one in self.repetitions(field)[0].split(self.marks[1])]

    def part(self, field: str, number: int) -> str:
        """Return a component, counted from 1; empty if there is none."""
        parts = self.parts(field)
        return parts[number - 1] if number <= len(parts) else ""

    def text(self, written: str) -> str:
        """Return a text with its escapes resolved; one that is no HL7 escape stays as it is."""
        escape = self.marks[3:4]
        if not escape or escape not in written:
            return written.strip()
        pieces = written.split(escape)
        known = {"F": self.marks[0], "S": self.marks[1], "R": self.marks[2], "E": escape}
        known["T"] = self.marks[4:5] or "&"
        found, inside = [pieces[0]], True
        for at, piece in enumerate(pieces[1:], start=1):
            last = at == len(pieces) - 1
            if inside and not last and _ESCAPE.fullmatch(piece):
                found.append(known.get(piece, _hexadecimal(piece)))
                inside = False
            elif inside:
                found.append(escape + piece)
            else:
                found.append(piece)
                inside = True
        return "".join(found).strip()


def _hexadecimal(escape: str) -> str:
    """Return the characters of ``X41``; formatting such as ``.br`` and ``H`` is a blank."""
    if not escape.startswith("X"):
        return " " if escape.startswith(".") else ""
    try:
        return bytes.fromhex(escape[1:]).decode("latin-1")
    except ValueError:
        return ""


def files_of(place: Path) -> list[Path]:
    """Return the files of messages: the one named, those of a pattern, or those in a folder.

    Raises:
        DataError: there are none.
    """
    if place.is_file():
        return [place]
    if any(letter in place.name for letter in "*?["):
        found = sorted(place.parent.glob(place.name))
    else:
        found = sorted(path for path in place.rglob("*") if _named(path))
    files = [path for path in found if path.is_file()]
    if not files:
        raise DataError(
            f"{place} holds no file of HL7 messages ({', '.join(ENDINGS)}, or these with .gz); "
            "check [data] path in site.toml"
        )
    return files


def _named(path: Path) -> bool:
    return path.name.lower().removesuffix(".gz").endswith(ENDINGS)


def messages(path: Path, encoding: str | None) -> Iterator[Message | None]:
    """Yield a file's messages, None for one that cannot be read.

    Args:
        path: the file.
        encoding: of the messages; None takes what each says (MSH-18), or else UTF-8.

    Raises:
        DataError: the file is damaged, holds no message, a segment without end, or most of its
            messages are in another encoding.
    """
    read = undecoded = 0
    for content in _contents(path):
        try:
            text = content.decode(encoding or _character_set(content))
        except (UnicodeDecodeError, LookupError):
            undecoded += 1
            yield None
            continue
        read += 1
        yield _parsed(text)
    if undecoded > read:
        raise DataError(
            f"{path}: {undecoded} of its {read + undecoded} messages are not in the encoding that "
            'they say; state it in [data] of site.toml, such as encoding = "latin-1"'
        )
    if not read:
        raise DataError(
            f"{path} holds no HL7 message, which begins with MSH; check [data] path in site.toml, "
            "and write messages as text"
        )


def _contents(path: Path) -> Iterator[bytes]:
    """Yield each message's bytes, its segments separated by carriage returns."""
    held: list[bytes] = []
    size = 0
    for line in _lines(path):
        if line.startswith(b"MSH") or line[:3] in _ENVELOPE:
            if held:
                yield b"\r".join(held)
            held, size = [], 0
            if not line.startswith(b"MSH"):
                continue
        elif not held:
            continue  # before the first message, or between two
        size += len(line)
        if size > LONGEST_MESSAGE:
            raise _endless(path)
        held.append(line)
    if held:
        yield b"\r".join(held)


def _lines(path: Path) -> Iterator[bytes]:
    rest = b""
    compressed = path.suffix.lower() == ".gz"
    try:
        with cast(IO[bytes], gzip.open(path) if compressed else path.open("rb")) as file:
            while content := file.read(PIECE_BYTES):
                *whole, rest = _LINES.split(rest + content)
                if len(rest) > LONGEST_MESSAGE:
                    raise _endless(path)
                yield from (line.lstrip(b"\xef\xbb\xbf") for line in whole if line)
            if rest:
                yield rest
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(
            f"{path} cannot be read to its end; it is damaged or was cut short, export it again"
        ) from error


def _endless(path: Path) -> DataError:
    return DataError(
        f"{path}: a message is longer than {LONGEST_MESSAGE} bytes; end every segment with a "
        "carriage return, and begin every message with MSH"
    )


def _character_set(content: bytes) -> str:
    """Return the encoding that a message names, UTF-8 if it names none."""
    header = content.partition(b"\r")[0].split(content[3:4] or b"|")
    named = header[17].split(b"~")[0].strip().decode("ascii", "replace") if header[17:] else ""
    if named.startswith("8859/"):
        return f"iso-8859-{named[5:]}"
    return _CHARACTER_SETS.get(named.upper(), "utf-8") if named else "utf-8"


def _parsed(text: str) -> Message | None:
    lines = text.split("\r")
    field = lines[0][3:4]
    marks = field + lines[0][4:].partition(field)[0] if field else ""
    if len(marks) < 2 or len(set(marks)) < len(marks) or marks[0].isalnum():
        return None
    segments = [line.split(field) for line in lines if line.strip()]
    segments[0].insert(1, field)  # MSH-1 is the separator itself
    return Message(tuple(segments), marks)
