"""One process, and one thread of it, at a time: a lock that whoever wants it waits for."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from consilium.shared.files.permissions import PRIVATE_FILE


@contextmanager
def file_lock(file: Path) -> Iterator[None]:
    """Hold the exclusive lock of a file (made, mode 0600) while the context is open.

    Raises:
        OSError: the file cannot be made.
    """
    opened = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE_FILE)
    try:
        fcntl.flock(opened, fcntl.LOCK_EX)
        yield
    finally:
        os.close(opened)
