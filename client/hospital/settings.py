"""``site.toml``: who this site is, where its coordinator is, and where its records lie.

::

    site = "medical-icu"

    [coordinator]              # written by 'enroll'
    host = "consilium.example.org"
    port = 9092

    [proxy]                    # optional; else HTTPS_PROXY, if it is set
    url = "http://proxy.hospital.example:3128"
    credentials = "proxy-account"   # a file of mode 0600 with NAME:PASSWORD

    [recovery]                 # optional: a folder that outlives this machine
    second_place = "/mnt/backup/consilium"

    [notices]                  # optional: see consilium.shared.notices.settings

    [data]                     # written by the hospital
    source = "physionet2012"
    path = "/data/icu"
    where = { ICUType = 3 }    # optional: only such stays

Which keys ``[data]`` may have depends on its source: see
:mod:`consilium.client.sources.common.settings`.
"""

import tomllib
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from consilium.client.hospital.policy_file import allowed_sources
from consilium.client.sources.common.settings import DataSettings
from consilium.client.sources.common.source import Source
from consilium.client.sources.registry import open_source, read_data_settings
from consilium.shared.errors import SettingsError
from consilium.shared.files.strict_toml import fault_in_words
from consilium.shared.notices.settings import NoticeSettings
from consilium.shared.study.definition import Study

FILE_NAME = "site.toml"

TEMPLATE = """\
# This site's settings. What it allows is in policy.toml, beside this file.
{site}
# A folder on another machine of yours. After each release a sealed certificate of what was spent is
# put there, from which a new machine goes on with the recovery code. Without it the coordinator has
# the only copy, and could show an older one.
# [recovery]
# second_place = "/mnt/backup/consilium"

# A proxy between this machine and the coordinator, if HTTPS_PROXY does not name it.
# [proxy]
# url = "http://proxy.hospital.example:3128"
# credentials = "proxy-account"   # a file of mode 0600 in this folder: NAME:PASSWORD

# Notices by mail or to a web address: docs/operations.md, "Be told". A test of them:
# 'consilium-site notices --test'.
# [notices.mail]
# host = "mail.hospital.example"
# account = "mail-account"        # a file of mode 0600 in this folder: NAME:PASSWORD
# from = "consilium@hospital.example"
# to = ["it@hospital.example"]

# Where this site's records lie. 'consilium-site check STUDY' reads them as a study would.
# [data]
# source = "physionet2012"     # the kind; for a study on "hospital": tables, meds, omop or fhir
# path = "/path/to/records"    # absolute, or relative to this file
# where = {{ ICUType = 3 }}      # only such stays
"""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class CoordinatorAddress(_Part):
    """The one host and port that this site dials."""

    host: str = Field(min_length=1, max_length=253)
    port: Annotated[int, Field(ge=1, le=65535)]


class ProxySettings(_Part):
    """The proxy through which this site dials, and the file with its account there."""

    url: str = Field(min_length=1, max_length=300)
    credentials: str | None = Field(default=None, min_length=1)


class RecoverySettings(_Part):
    """The hospital's own second place for budget certificates: a folder of another machine."""

    second_place: str = Field(min_length=1)


class SiteSettings(_Part):
    """Contents of ``site.toml``; ``data`` is left as written, its source's own model checks it."""

    site: str | None = None
    coordinator: CoordinatorAddress | None = None
    proxy: ProxySettings | None = None
    recovery: RecoverySettings | None = None
    notices: NoticeSettings | None = None
    data: dict[str, Any] | None = None

    @classmethod
    def read(cls, folder: Path) -> "SiteSettings":
        """Read the settings in a site's folder.

        Raises:
            SettingsError: the file is missing or malformed; the sentence names the key.
        """
        file = folder / FILE_NAME
        try:
            content: dict[str, Any] = tomllib.loads(file.read_text(encoding="utf-8-sig"))
            return cls.model_validate(content)
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(
                f"{file}: cannot be read; run 'consilium-site init', or name the folder with "
                "--folder"
            ) from error
        except tomllib.TOMLDecodeError as error:
            raise SettingsError(f"{file}: is not valid TOML: {fault_in_words(error)}") from error
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            told = str(first["msg"]).removeprefix("Value error, ")
            raise SettingsError(f"{file}: {where}: {told.lower()}; correct it") from error

    def records(self, folder: Path) -> DataSettings:
        """Return where this site's records lie, checked.

        Raises:
            SettingsError: ``[data]`` is missing, or one of its keys is wrong.
        """
        if self.data is None:
            raise SettingsError(
                f"{folder / FILE_NAME}: has no [data]; say there where this site's records lie"
            )
        return read_data_settings(
            self.data,
            where=str(folder / FILE_NAME),
            folder=folder,
            installed=allowed_sources(folder),
        )

    def open_source(self, folder: Path, study: Study, *, counts_units: bool = False) -> Source:
        """Open this site's records for a study, as :func:`registry.open_source` does.

        Raises:
            SettingsError: ``[data]`` is missing or wrong.
            DataError: the records are not there, or the study wants another kind.
        """
        return open_source(self.records(folder), study, counts_units=counts_units)
