"""The coordinator's folder: its keys, its register, and the progress of each study.

::

    coordinator.toml     name, address, ports; the operator adds [notices]
    identity.pem         Ed25519 identity, mode 0600
    tls/                 certificate authority and server certificate
    register.sqlite      invitations, sites, studies
    link.sqlite          Flower's SuperLink database
    studies/DIGEST/      checkpoint, records of the rounds
    notices.sqlite       notices to people, and what became of them
    audit.jsonl          the audit log; audit-0001.jsonl and on are its sealed segments
    logs/                of the supervisor, the service and the study processes, rotated
"""

import fcntl
import os
import re
import tomllib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from consilium.server.coordinator.certificates import (
    CertificateFiles,
    issue_server_certificate,
    make_authority,
)
from consilium.server.coordinator.register import Register
from consilium.shared.crypto.keys import IdentityKey
from consilium.shared.errors import SettingsError
from consilium.shared.files.atomic_file import write_atomically
from consilium.shared.files.permissions import PRIVATE_FILE, PRIVATE_FOLDER

if TYPE_CHECKING:  # what it needs is imported by whoever has notices
    from consilium.shared.notices.settings import NoticeSettings

OWNER = "coordinator"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What ``coordinator.toml`` holds.

    Attributes:
        name: shown to hospitals.
        host: name or address at which sites reach the coordinator; invitations carry it.
        port: the only port it listens on for sites.
        listen: address to listen on.
    """

    name: str
    host: str
    port: int
    listen: str = "0.0.0.0"  # noqa: S104 - sites dial in from outside; that is its purpose


@dataclass(frozen=True, kw_only=True)
class CoordinatorFolder:
    """A folder that ``init`` has made."""

    path: Path
    settings: Settings

    @classmethod
    def make(cls, path: Path, settings: Settings, names: tuple[str, ...]) -> "CoordinatorFolder":
        """Initialise a new folder: keys, certificates, register.

        The settings are written last: a folder that has them is complete.

        Raises:
            SettingsError: the folder is initialised already, or cannot be written.
        """
        folder = cls(path=path, settings=settings)
        if folder._settings_file.exists():
            raise SettingsError(
                f"{path}: is a coordinator's folder already; its keys would be lost, "
                "choose another --folder"
            )
        try:
            for made in (path, path / "tls", path / "studies", path / "logs"):
                made.mkdir(parents=True, exist_ok=True)
                made.chmod(PRIVATE_FOLDER)
            write_atomically(
                path / "identity.pem", IdentityKey.generate().to_pem(), mode=PRIVATE_FILE
            )
            make_authority(folder.certificates, name=settings.name)
            issue_server_certificate(folder.certificates, names)
            folder.register()
            write_atomically(folder._settings_file, _to_toml(settings), mode=PRIVATE_FILE)
        except OSError as error:
            raise SettingsError(f"{path}: cannot be written ({error.strerror})") from error
        return folder

    @classmethod
    def open(cls, path: Path) -> "CoordinatorFolder":
        """Open an initialised folder.

        Raises:
            SettingsError: the folder was not initialised.
        """
        file = path / "coordinator.toml"
        try:
            content = tomllib.loads(file.read_text(encoding="utf-8"))
            settings = Settings(
                name=str(content["name"]),
                host=str(content["host"]),
                port=int(content["port"]),
                listen=str(content["listen"]),
            )
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(
                f"{file}: cannot be read; run 'consilium-coordinator init', or name the folder "
                "with --folder"
            ) from error
        except (tomllib.TOMLDecodeError, KeyError, ValueError) as error:
            raise SettingsError(
                f"{file}: must hold name, host, port and listen ({error}); correct it"
            ) from error
        return cls(path=path, settings=settings)

    def rename(self, host: str) -> None:
        """Let invitations name another host from now on.

        Raises:
            SettingsError: the settings cannot be written.
        """
        written = _to_toml(replace(self.settings, host=host)).decode()
        line = next(one for one in written.splitlines() if one.startswith("host ="))
        try:
            text = self._settings_file.read_text(encoding="utf-8")
            # The first key of this name: no table can stand before it. The rest is the operator's.
            text = re.sub(r"^\s*host\s*=.*$", lambda _: line, text, count=1, flags=re.MULTILINE)
            if tomllib.loads(text)["host"] != host:
                raise SettingsError(
                    f"{self._settings_file}: has no line 'host = ...' of its own; write one"
                )
            write_atomically(self._settings_file, text.encode(), mode=PRIVATE_FILE)
        except OSError as error:
            raise SettingsError(f"{self.path}: cannot be written ({error.strerror})") from error

    def notices(self) -> "NoticeSettings | None":
        """What ``[notices]`` in the settings says; None without it.

        Raises:
            SettingsError: the table is wrong; the sentence names the key.
        """
        try:
            content = tomllib.loads(self._settings_file.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise SettingsError(f"{self._settings_file}: cannot be read; correct it") from error
        if "notices" not in content:
            return None
        from consilium.shared.notices.settings import read_notice_settings

        return read_notice_settings(
            content["notices"], where=str(self._settings_file), raises=SettingsError
        )

    @property
    def _settings_file(self) -> Path:
        return self.path / "coordinator.toml"

    @property
    def certificates(self) -> CertificateFiles:
        """The authority and the server certificate."""
        return CertificateFiles.under(self.path / "tls")

    @property
    def link_database(self) -> Path:
        """Flower's database of nodes and messages."""
        return self.path / "link.sqlite"

    def owner(self) -> str:
        """The coordinator's name in its audit log."""
        return OWNER

    def identity(self) -> IdentityKey:
        """The coordinator's identity.

        Raises:
            SettingsError: the file is missing or malformed.
        """
        try:
            return IdentityKey.from_pem((self.path / "identity.pem").read_bytes())
        except OSError as error:
            raise SettingsError(
                f"{self.path / 'identity.pem'}: cannot be read ({error.strerror}); restore it "
                "from a backup"
            ) from error

    def register(self) -> Register:
        """The register of invitations, sites and studies."""
        return Register(self.path / "register.sqlite")

    def study(self, digest: bytes) -> Path:
        """The folder of a study's run; it is made if it is not there."""
        folder = self.path / "studies" / digest.hex()
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(PRIVATE_FOLDER)
        return folder


def hold_lock(path: Path, *, refused: str) -> int:
    """Hold this file's lock until the process ends, however it ends; return the open file.

    Raises:
        SettingsError: another process holds it; ``refused`` is the error's sentence.
    """
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE_FILE)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(file)
        raise SettingsError(refused) from None
    return file


def _to_toml(settings: Settings) -> bytes:
    text = (
        f"name = {_quoted(settings.name)}\n"
        f"host = {_quoted(settings.host)}  # in invitations; renew the certificate if it changes\n"
        f"port = {settings.port}\n"
        f"listen = {_quoted(settings.listen)}\n"
    )
    return text.encode()


def _quoted(text: str) -> str:
    if not text.isprintable() or '"' in text or "\\" in text:
        raise SettingsError(f"{text!r}: must be printable and without quotes and backslashes")
    return f'"{text}"'
