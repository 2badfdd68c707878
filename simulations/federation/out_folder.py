"""The folder of a run: checks that it is one, and that one process at a time uses it.

Two processes that shared a checkpoint would spoil each other's rounds: the sites' journals refuse
to mask a round twice, so nothing would leak, but every such round would be void and charged.
"""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from consilium.shared.errors import SettingsError

LOCK = ".lock"
SITES = "sites"


@contextmanager
def use_folder(out: Path, *, marker: str) -> Iterator[None]:
    """Lock a folder for this process; the lock ends with the process, however that ends.

    Args:
        out: the folder; made if it does not exist.
        marker: a file whose presence shows that a run was begun in the folder.

    Raises:
        SettingsError: the folder is a file, holds something else than a run, or is in use.
    """
    if out.exists() and not out.is_dir():
        raise SettingsError(f"--out {out}: is a file; name a folder")
    strangers = {path.name for path in out.iterdir()} - {LOCK, SITES} if out.is_dir() else set()
    if strangers and marker not in strangers:
        raise SettingsError(
            f"--out {out}: is not empty and holds no {marker} to go on from; "
            "name an empty folder, or one that a run was cut off in"
        )
    out.mkdir(parents=True, exist_ok=True)
    with (out / LOCK).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise SettingsError(
                f"--out {out}: another run is using it; wait for it or name another folder"
            ) from error
        yield
