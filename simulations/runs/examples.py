"""The studies that come with the package, by name."""

from importlib.resources import files

from consilium.shared.errors import StudyError
from consilium.shared.study.definition import Study, parse_study

SUFFIX = ".toml"


def example_study(name: str) -> Study:
    """Return a study that comes with the package.

    Args:
        name: of the study's file, without ``.toml``; ``demo`` needs no records.

    Raises:
        StudyError: there is none of that name; the sentence lists all names.
    """
    folder = files("consilium.studies")
    held = {file.name.removesuffix(SUFFIX): file for file in folder.iterdir()
            if file.name.endswith(SUFFIX)}  # fmt: skip  # reads as one
    if name not in held:
        raise StudyError(
            f"there is no example study {name!r}; choose one of {', '.join(sorted(held))}"
        )
    return parse_study(held[name].read_text(encoding="utf-8"), where=name)
