"""Who may sign in, in which role: a file of mode 0600 with salted, slow hashes of passwords.

Hashes are scrypt (RFC 7914) with N = 2**15, r = 8, p = 3, one of the settings of OWASP's Password
Storage Cheat Sheet: 32 MiB and some 0.3 s a guess. A person whose entry changed or went is signed
out at the next request.
"""

import hmac
import json
import os
import re
import unicodedata
from collections.abc import Collection
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from consilium.shared.errors import SettingsError
from consilium.shared.files.atomic_file import write_atomically
from consilium.shared.files.file_lock import file_lock
from consilium.shared.files.permissions import PRIVATE_FILE

FILE_NAME = "web-users.json"
LEAST_CHARACTERS, MOST_CHARACTERS = 12, 256
LARGEST_BYTES = 1 << 20
COST = 15  # of scrypt: log2 N
_BLOCKS, _LANES, _SALT_BYTES, _HASH_BYTES = 8, 3, 16, 32
_NAME = re.compile(r"[\w](?:[\w.' -]{0,46}[\w.])?")


@dataclass(frozen=True, kw_only=True)
class User:
    """A person's entry: name, role, and the hash of the password with its salt (hexadecimal)."""

    name: str
    role: str
    salt: str
    cost: int
    hashed: str

    def __repr__(self) -> str:
        return f"User({self.name!r}, {self.role!r})"

    def has_password(self, password: str) -> bool:
        """Tell whether this is the person's password; it takes as long whether it is or not."""
        found = _hash(password, bytes.fromhex(self.salt), self.cost)
        return hmac.compare_digest(found, bytes.fromhex(self.hashed))


class Users:
    """The persons of one folder.

    Args:
        folder: the site's or the coordinator's.
        roles: that a person may have.
        command: how persons are added, for sentences.
        cost: log2 N of scrypt for passwords that are set; smaller only in tests.
    """

    def __init__(
        self, folder: Path, roles: Collection[str], *, command: str, cost: int = COST
    ) -> None:
        self.file, self.roles, self._command, self._cost = folder / FILE_NAME, roles, command, cost

    def all(self) -> tuple[User, ...]:
        """Return all persons, by name; none if there is no file.

        Raises:
            SettingsError: the file is damaged, or others can read or change it.
        """
        try:
            mode = self.file.stat().st_mode
            if mode & 0o077:
                raise SettingsError(
                    f"{self.file}: may be read by other accounts (mode {mode & 0o777:o}); run "
                    f"'chmod 600 {self.file}' and let everybody choose a new password"
                )
            content = self.file.read_bytes()
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise SettingsError(
                f"{self.file}: cannot be read ({error.strerror}); check who may"
            ) from error
        try:
            if len(content) > LARGEST_BYTES:
                raise ValueError
            found = tuple(User(**one) for one in json.loads(content)["users"])
            if not all(self._is_whole(one) for one in found):
                raise ValueError
        except (ValueError, TypeError, KeyError) as error:
            raise SettingsError(
                f"{self.file}: is damaged; remove it, and add everybody again with "
                f"'{self._command} add'"
            ) from error
        return found

    def find(self, name: str) -> User | None:
        """Return the person of this name, however it is written; None if there is none."""
        return next((one for one in self.all() if _same(one.name, name)), None)

    def check(self, name: str, password: str) -> User | None:
        """Return the person if the password is theirs, else None, after the same work."""
        user = self.find(name)
        whom = user or User(name="", role="", salt="00" * _SALT_BYTES, cost=self._cost, hashed="00")
        return user if whom.has_password(password) and user is not None else None

    def set(self, name: str, role: str, password: str) -> None:
        """Add a person, or give one another role and password; who is signed in is signed out.

        Raises:
            SettingsError: nobody can have this name, role or password.
        """
        name = unicodedata.normalize("NFKC", name)
        if not _NAME.fullmatch(name):
            raise SettingsError(
                f"{name[:60]!r} is no name to sign in with; take 1 to 48 letters, digits, dots, "
                "dashes, apostrophes and spaces"
            )
        if role not in self.roles:
            raise SettingsError(f"--role {role}: must be one of {', '.join(self.roles)}")
        if not LEAST_CHARACTERS <= len(password) <= MOST_CHARACTERS:
            raise SettingsError(
                f"the password has {len(password)} characters; take {LEAST_CHARACTERS} to "
                f"{MOST_CHARACTERS}, such as five words that do not belong together"
            )
        if _same(password, name):
            raise SettingsError("the password is the person's name; take another")
        salt = os.urandom(_SALT_BYTES)
        user = User(name=name, role=role, salt=salt.hex(), cost=self._cost, hashed="")
        user = replace(user, hashed=_hash(password, salt, self._cost).hex())
        with file_lock(self.file.with_suffix(".lock")):
            others = [one for one in self.all() if not _same(one.name, name)]
            self._write([*others, user])

    def remove(self, name: str) -> None:
        """Remove a person, who is signed out at once.

        Raises:
            SettingsError: there is none of this name.
        """
        with file_lock(self.file.with_suffix(".lock")):
            known = self.all()
            others = [one for one in known if not _same(one.name, name)]
            if len(others) == len(known):
                raise SettingsError(
                    f"nobody is named {name[:60]!r}; '{self._command} list' shows all"
                )
            self._write(others)

    def _write(self, users: list[User]) -> None:
        content = {"users": [asdict(one) for one in sorted(users, key=lambda one: one.name)]}
        write_atomically(self.file, json.dumps(content, indent=1).encode(), mode=PRIVATE_FILE)

    def _is_whole(self, user: User) -> bool:
        sizes = (len(bytes.fromhex(user.salt)), len(bytes.fromhex(user.hashed)))
        return (
            isinstance(user.name, str)
            and bool(_NAME.fullmatch(user.name))
            and user.role in self.roles
            and type(user.cost) is int
            and 1 <= user.cost <= COST
            and sizes == (_SALT_BYTES, _HASH_BYTES)
        )


def _hash(password: str, salt: bytes, cost: int) -> bytes:
    kdf = Scrypt(salt=salt, length=_HASH_BYTES, n=1 << cost, r=_BLOCKS, p=_LANES)
    words = unicodedata.normalize("NFKC", password[: 2 * MOST_CHARACTERS])
    return kdf.derive(words.encode("utf-8", "surrogatepass"))


def _same(one: str, other: str) -> bool:
    return _folded(one) == _folded(other)


def _folded(name: str) -> str:
    return unicodedata.normalize("NFKC", name).casefold()
