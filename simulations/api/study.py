"""Reading a study's file."""

from os import PathLike
from pathlib import Path

from consilium.shared.errors import StudyError
from consilium.shared.study import definition
from consilium.shared.study.definition import Study


def load_study(path: str | PathLike[str]) -> Study:
    """Read and check a study file.

    Args:
        path: a TOML file; docs/studies.md has its tables and keys.

    Returns:
        The study, with every default filled in; it cannot be changed, see
        :func:`consilium.with_changes`.

    Raises:
        StudyError: the file is missing, is not TOML, or is not a valid study; one sentence that
            names the file, the key, the value, the bound and the remedy.
    """
    return definition.load_study(Path(path))


def a_study(given: object) -> Study:
    """Return what was given, if it is a study.

    Raises:
        StudyError: it is something else, such as a study's path.
    """
    if not isinstance(given, Study):
        raise StudyError(
            f"a study is needed, and {type(given).__name__} {str(given)[:80]!r} is none; "
            "make it with consilium.load_study(path)"
        )
    return given
