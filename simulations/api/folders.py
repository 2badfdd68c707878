"""The folder behind a result: the researcher's own, or a temporary one."""

import shutil
import tempfile
import weakref
from os import PathLike
from pathlib import Path

from consilium.shared.errors import SettingsError


class Folder:
    """A folder that is removed with the last object that holds it, if nobody named it.

    Args:
        path: the folder; a new temporary one unless given.
    """

    def __init__(self, path: str | PathLike[str] | None = None) -> None:
        self._end: weakref.finalize[..., Folder] | None = None
        if path is not None:
            self._path = Path(path)
        else:
            self._path = Path(tempfile.mkdtemp(prefix="consilium-"))
            self._end = weakref.finalize(self, shutil.rmtree, self._path, ignore_errors=True)

    @property
    def path(self) -> Path:
        """Where it is.

        Raises:
            SettingsError: it was temporary and was closed.
        """
        if self._end is not None and not self._end.alive:
            raise SettingsError(
                "this result's temporary folder was closed; give out=FOLDER to keep its files"
            )
        return self._path

    def close(self) -> None:
        """Remove a temporary folder now; one that was named stays."""
        if self._end is not None:
            self._end()
