"""Write a file so that a crash leaves either the old content or the new, never a mixture."""

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

from consilium.shared.errors import SettingsError
from consilium.shared.files.permissions import PRIVATE_FILE


def write_atomically(
    path: Path, content: bytes | Iterable[bytes | memoryview], *, mode: int | None = None
) -> None:
    """Replace the file's content in one step, flushed to disk; missing folders are made.

    A long content may come in pieces, so that it need not exist a second time.

    The content goes to a temporary file beside it (never readable by others), which is flushed and
    renamed over it; the folder's entry is flushed too. ``mode`` is the file's permission bits;
    without it, they are those that this account's umask leaves, of 0644 at most.

    Raises:
        OSError: the folder cannot be written; the old content is untouched.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.writelines((content,) if isinstance(content, bytes) else content)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644 & ~umask() if mode is None else mode)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def write_private_output(file: Path, content: bytes, *, option: str) -> None:
    """Write a file of patients that a person named by an option of a command, mode 0600.

    Raises:
        SettingsError: it cannot be written; an older file stays as it was.
    """
    try:
        write_atomically(file, content, mode=PRIVATE_FILE)
    except OSError as error:
        raise SettingsError(
            f"{file}: cannot be written ({error.strerror}); name another {option}"
        ) from error


def umask() -> int:
    """Return this process's umask; only where the system does not show it, it is set to be read."""
    try:
        for line in Path("/proc/self/status").read_text("ascii", errors="replace").splitlines():
            if line.startswith("Umask:"):
                return int(line.split()[1], 8)
    except (OSError, ValueError):
        pass
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
