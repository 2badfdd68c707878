"""Whether a site answers: its process holds the folder's lock, dated by the last contact.

The process has that file open while it lives, and a new date is no write to it.
"""

import contextlib
import fcntl
import os
import time
from pathlib import Path

from consilium.shared.errors import UnreachableError

LOCK = "lock"
SILENT_S = 120.0  # a sign of life goes out every few seconds


def note_contact(folder: Path) -> None:
    """Note that the coordinator was reached just now; what a broken disk does not take is lost."""
    with contextlib.suppress(OSError):
        os.utime(folder / LOCK)


def is_held(lock: Path) -> bool:
    """Return whether a process holds this lock, that is, whether the site runs."""
    try:
        file = os.open(lock, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(file)
    return False


def check_health(folder: Path, *, now: float | None = None) -> None:
    """Return if a process answers for the site and has reached its coordinator of late.

    Args:
        folder: the site's.
        now: seconds since 1970; None for the present.

    Raises:
        UnreachableError: no process holds the folder, or the coordinator was not reached for long.
    """
    if not is_held(folder / LOCK):
        raise UnreachableError(f"{folder}: no process answers for this site; start it")
    silent_s = (time.time() if now is None else now) - (folder / LOCK).stat().st_mtime
    if silent_s > SILENT_S:
        raise UnreachableError(
            f"{folder}: the coordinator was not reached for {silent_s:.0f} s; its address, the "
            "network and whether this site was revoked are told by 'consilium-site preflight'"
        )
