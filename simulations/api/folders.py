"""The folder behind a result: the researcher's own, or a temporary one."""

import shutil
import tempfile
import weakref
from os import PathLike
from pathlib import Path
from typing import Self

from consilium.shared.errors import SettingsError


class Folder:
    """A folder; a temporary one is removed with the last object that uses it.

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
        """The folder's path.

        Raises:
            SettingsError: the folder was temporary and was closed.
        """
        if self._end is not None and not self._end.alive:
            raise SettingsError(
                "this result's temporary folder was closed; give out=FOLDER to keep its files"
            )
        return self._path

    def close(self) -> None:
        """Remove the folder now if it is temporary."""
        if self._end is not None:
            self._end()


class InFolder:
    """What a result and a comparison have in common: files in a folder, which may be temporary."""

    _folder: Folder

    @property
    def folder(self) -> Path:
        """The folder of the files; docs/run-json.md lists them.

        Raises:
            SettingsError: it was temporary and was closed.
        """
        return self._folder.path

    def close(self) -> None:
        """Remove a temporary folder now; a folder that was named stays."""
        self._folder.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
