"""``site.toml``: who this site is, where its coordinator is, and where its records lie.

::

    site = "medical-icu"

    [coordinator]              # written by 'enroll'
    host = "consilium.example.org"
    port = 9092

    [data]                     # written by the hospital
    source = "physionet2012"
    path = "/data/icu"
    where = { ICUType = 3 }    # optional: only such stays
"""

import tomllib
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from client.sources import Source
from client.sources.physionet2012 import PhysioNet2012
from shared.errors import SettingsError

FILE_NAME = "site.toml"

TEMPLATE = """\
# This site's settings. What it allows is in policy.toml, beside this file.
{site}
# Where this site's records lie. 'consilium-site check STUDY' reads them as a study would.
# [data]
# source = "physionet2012"     # the kind of data, as the study's [data] source names it
# path = "/path/to/records"    # absolute, or relative to this file
# where = {{ ICUType = 3 }}      # only such stays
"""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class DataSettings(_Part):
    """Where records lie; ``where`` keeps only stays with these values."""

    source: str
    path: str
    where: dict[str, float] = Field(default_factory=dict, strict=False)


class CoordinatorAddress(_Part):
    """The one host and port that this site dials."""

    host: str = Field(min_length=1, max_length=253)
    port: Annotated[int, Field(ge=1, le=65535)]


class SiteSettings(_Part):
    """What ``site.toml`` holds."""

    site: str | None = None
    coordinator: CoordinatorAddress | None = None
    data: DataSettings | None = None

    @classmethod
    def read(cls, folder: Path) -> "SiteSettings":
        """Read the settings in a site's folder.

        Raises:
            SettingsError: the file is missing or malformed; names the key.
        """
        file = folder / FILE_NAME
        try:
            content: dict[str, Any] = tomllib.loads(file.read_text(encoding="utf-8"))
            return cls.model_validate(content)
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(
                f"{file}: cannot be read; run 'consilium-site init', or name the folder with "
                "--folder"
            ) from error
        except tomllib.TOMLDecodeError as error:
            raise SettingsError(f"{file}: is not valid TOML: {error}; correct that line") from error
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise SettingsError(
                f"{file}: {where}: {str(first['msg']).lower()}; correct it"
            ) from error

    def open_source(self, folder: Path, kind: str) -> Source:
        """Return the records for a study that wants this kind of data.

        Raises:
            SettingsError: no records are set, or they are of another kind.
        """
        if self.data is None:
            raise SettingsError(
                f"{folder / FILE_NAME}: has no [data]; say there where this site's records lie"
            )
        if self.data.source != kind:
            raise SettingsError(
                f"{folder / FILE_NAME}: [data] source = {self.data.source!r}, and the study wants "
                f"{kind!r}; the site has no such records, or the setting is wrong"
            )
        if kind != PhysioNet2012.name:
            raise SettingsError(
                f"{folder / FILE_NAME}: [data] source = {kind!r} is not known to this build; "
                f"known: {PhysioNet2012.name}"
            )
        return PhysioNet2012(folder / Path(self.data.path).expanduser(), where=self.data.where)
