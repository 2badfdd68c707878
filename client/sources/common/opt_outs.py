"""Persons who opted out: a text file that the hospital keeps, one person's identifier a line.

The file is read anew whenever it is asked, so that it holds from the moment it names a person. A
file that is missing or cannot be read stops everything that would read records, since without it
nobody can say who may be read.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from consilium.client.sources.common.identifiers import normal_identifier
from consilium.shared.errors import DataError

LARGEST_BYTES = 1 << 27
LONGEST_IDENTIFIER = 256


@dataclass(frozen=True, repr=False)
class OptOuts:
    """The persons named, in normal form (:mod:`.identifiers`)."""

    persons: frozenset[str] = frozenset()

    @classmethod
    def read(cls, file: Path) -> Self:
        """Read the file: UTF-8, one identifier a line; empty lines and lines after # are skipped.

        Raises:
            DataError: it is missing, cannot be read, or a line is no single identifier.
        """
        try:
            with file.open("rb") as opened:
                content = opened.read(LARGEST_BYTES + 1)
            text = content.decode("utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(
                f"{file}, which names the persons who opted out, cannot be read as UTF-8 text; "
                "nobody's records are read until it can: put it back, or correct [data] opted_out "
                "in site.toml"
            ) from error
        if len(content) > LARGEST_BYTES:
            raise DataError(f"{file} is larger than {LARGEST_BYTES} bytes; check [data] opted_out")
        persons = set()
        for number, line in enumerate(text.splitlines(), start=1):
            person = normal_identifier(line.strip().strip('"'))
            if not person or person.startswith("#"):
                continue
            if len(person) > LONGEST_IDENTIFIER or any(sign in person for sign in ',;\t|"\0'):
                raise DataError(
                    f"{file} line {number}: is not one person's identifier alone; write one a "
                    "line, without other columns: nobody's records are read until then"
                )
            persons.add(person)
        return cls(frozenset(persons))

    def name(self, *identifiers: str) -> bool:
        """Whether the file names a person by one of their identifiers, however it is written."""
        return any(
            one in self.persons or normal_identifier(one) in self.persons for one in identifiers
        )

    def __len__(self) -> int:
        return len(self.persons)

    def __repr__(self) -> str:
        return f"OptOuts({len(self.persons)} persons)"
