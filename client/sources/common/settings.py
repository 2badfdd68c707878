"""The ``[data]`` table of ``site.toml``: where this hospital's records lie, and how to read them.

Every source has its own keys, so ``source`` is read first, and the rest is checked against that
source's model. The models for files in a fixed format are here, those for a hospital's own systems
in :mod:`consilium.client.sources.own.settings`. Relative paths start at the folder of
``site.toml``.

::

    [data]
    source = "physionet2012"
    path = "challenge"
    where = { ICUType = 1 }
"""

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr, ValidationError

from consilium.shared.errors import SettingsError
from consilium.shared.files.strict_toml import keys_at

Where = dict[str, float | str]
SettingsT = TypeVar("SettingsT", bound=BaseModel)


def _as_path(given: object) -> object:
    """Return text as a path; ``~`` stands for the home folder."""
    return Path(given).expanduser() if isinstance(given, str) and given else given


def _as_tuple(given: object) -> object:
    """Return TOML's lists as tuples, which frozen settings hold."""
    return tuple(given) if isinstance(given, list) else given


Number = Annotated[float, Field(allow_inf_nan=False)]
Listed = BeforeValidator(_as_tuple)
FilePath = Annotated[Path, BeforeValidator(_as_path)]


class SettingsPart(BaseModel):
    """A table of the settings: frozen, and strict about keys and types."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class DataSettings(SettingsPart):
    """Settings common to all sources.

    Attributes:
        source: the kind of records.
        opted_out: file of the persons who opted out, one identifier a line.
    """

    source: str = Field(min_length=1, max_length=64)
    opted_out: FilePath | None = None
    _installed: Any = PrivateAttr(default=None)

    @property
    def installed(self) -> Any:
        """The installed source that reads them, None for one of Consilium's own."""
        return self._installed


class RecordsSettings(DataSettings):
    """Records in a folder or file whose format needs no further settings.

    ``where`` keeps only the stays with these values.
    """

    path: FilePath
    where: Where = {}


class PhysioNet2012Settings(RecordsSettings):
    """One set of the PhysioNet/CinC Challenge 2012; ``set`` names it if the path does not."""

    set: Literal["a", "b", "c"] = "a"


class FileOrFolderSettings(DataSettings):
    """Records in a folder or file, all of them."""

    path: FilePath


class DiagnosisCodesSettings(RecordsSettings):
    """Visits with diagnosis codes; patients with fewer than ``fewest_visits`` are left out."""

    fewest_visits: int = Field(default=1, ge=1)


class HeartDiseaseSettings(FileOrFolderSettings):
    """One hospital's file, or the folder of all four files and the name of a ``hospital``."""

    hospital: Literal["cleveland", "hungarian", "switzerland", "va"] | None = None


def parse_settings(
    model: type[DataSettings], table: Mapping[str, Any], *, where: str, folder: Path
) -> DataSettings:
    """Check a ``[data]`` table against one source's model and make its paths absolute.

    Args:
        model: the source's settings.
        table: the table as read from TOML.
        where: names the file in errors.
        folder: relative paths start here.

    Raises:
        SettingsError: a key is wrong; the sentence names it, its type or bound, and the remedy.
    """
    try:
        settings = model.model_validate(dict(table))
    except ValidationError as error:
        raise SettingsError(f"{where}: {_sentence(error.errors()[0], model)}") from error
    return _resolved(settings, folder)


def _resolved(part: SettingsT, folder: Path) -> SettingsT:
    """Return the same settings with every path absolute."""
    changes: dict[str, Any] = {}
    for name in type(part).model_fields:
        value = getattr(part, name)
        if isinstance(value, Path):
            changes[name] = folder / value
        elif isinstance(value, BaseModel):
            changes[name] = _resolved(value, folder)
        elif isinstance(value, tuple) and value and isinstance(value[0], BaseModel):
            changes[name] = tuple(_resolved(item, folder) for item in value)
    return part.model_copy(update=changes) if changes else part


def _sentence(error: Any, model: type[BaseModel]) -> str:
    """Return one pydantic error as one sentence; never quotes a value that could be a secret."""
    location = [str(part) for part in error["loc"]]
    *tables, key = ["data", *location]
    place = f"[{'.'.join(tables)}] {key}" if tables else f"[{key}]"
    kind, bounds = error["type"], error.get("ctx", {})
    if kind == "extra_forbidden":
        known = keys_at(model, location[:-1])
        near = difflib.get_close_matches(key, known, n=1, cutoff=0.0)
        hint = f"; did you mean {near[0]!r}?" if near else "; remove it"
        return f"{place} is not a known key{hint}"
    if kind == "missing":
        return f"{place} is missing; add it"
    if kind == "literal_error":
        return f"{place} must be one of {bounds['expected']}; choose one of them"
    if kind == "value_error":
        return f"{place}: {str(error['msg']).removeprefix('Value error, ')}"
    return f"{place} is not acceptable: {str(error['msg']).lower()}; correct it"
