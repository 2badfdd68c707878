"""What an audit log got since it was last looked at; nothing is verified here."""

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from consilium.shared.audit.entry import LARGEST_LINE, AuditEntry
from consilium.shared.audit.segments import segments
from consilium.shared.errors import AuditError


class AuditTail:
    """Reads on in a log from where it stopped, through files that were sealed meanwhile.

    Args:
        path: the file that is written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: tuple[int, int] | None = None  # device and number of the file it stopped in
        self._offset = 0

    def read(self) -> Iterator[AuditEntry]:
        """Yield the entries since the last call; the first call yields all.

        Whoever stops before the end goes on from there. Lines that are no entry are left out.

        Raises:
            AuditError: a file cannot be read.
        """
        try:
            for place in self._places():
                yield from self._read_on(place)
        except OSError as error:
            raise AuditError(
                f"audit log {self._path}: cannot be read ({error.strerror}); check who may read it"
            ) from error

    def _places(self) -> list[Path]:
        """The files from the one where reading stopped on; all, if that is not there any more."""
        files = [*segments(self._path), self._path]
        for number, place in enumerate(files):
            found = place.stat()
            if (found.st_dev, found.st_ino) == self._file:
                return files[number:]
        self._file = None
        return files

    def _read_on(self, place: Path) -> Iterator[AuditEntry]:
        with place.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH)  # not while a line is half written
            found = os.fstat(file.fileno())
            fcntl.flock(file, fcntl.LOCK_UN)
            if (found.st_dev, found.st_ino) != self._file or found.st_size < self._offset:
                self._file, self._offset = (found.st_dev, found.st_ino), 0
            file.seek(self._offset)
            while self._offset < found.st_size:
                line = file.readline(LARGEST_LINE + 1)
                if not line.endswith(b"\n"):
                    return  # a crash left it; whoever writes next mends it
                self._offset += len(line)
                try:
                    entry = AuditEntry.from_line(line)
                except AuditError:
                    continue  # check_log names it
                yield entry
