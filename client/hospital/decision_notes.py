"""What persons here last decided about a study: who, when, on which roster and size.

A note never makes an approval (:mod:`consilium.client.hospital.approvals`); it remembers who has
approved while the policy asks for more persons, and shows a refusal to whoever comes next.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from consilium.shared.errors import SettingsError
from consilium.shared.files.atomic_file import write_atomically
from consilium.shared.files.permissions import PRIVATE_FILE

SUFFIX = ".decision"
LOCK = "decisions.lock"
"""A site's file that whoever decides holds."""
State = Literal["waiting", "approved", "refused", "withdrawn", "left"]
STATES = ("waiting", "approved", "refused", "withdrawn", "left")


@dataclass(frozen=True, kw_only=True)
class DecisionNote:
    """The last decision about a study.

    Attributes:
        state: ``waiting`` for more persons to approve, ``approved``, ``refused``, ``withdrawn``, or
            ``left`` if a later roster of the study is without this site.
        by: who decided so; while ``waiting``, who has approved.
        at: when, ISO 8601.
        roster: digest of the sites' identities that was approved, hexadecimal; else empty.
        patients: the declared size that was approved; else 0.
        reason: as the person gave it.
    """

    state: State
    by: tuple[str, ...]
    at: str
    roster: str = ""
    patients: int = 0
    reason: str = ""


class DecisionNotes:
    """The notes beside a site's approvals, one file per study.

    Args:
        folder: where they lie.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def find(self, digest: bytes) -> DecisionNote | None:
        """Return the note on the study with this digest, or None.

        Raises:
            SettingsError: the file is damaged.
        """
        file = self._file(digest)
        try:
            content = json.loads(file.read_bytes())
            note = DecisionNote(**content | {"by": tuple(content["by"])})
            if note.state not in STATES or not all(type(name) is str for name in note.by):
                raise ValueError
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, KeyError) as error:
            raise SettingsError(
                f"{file}: is damaged; remove it, and whoever has approved the study approves again"
            ) from error
        return note

    def write(self, digest: bytes, note: DecisionNote) -> None:
        """Put a note in the place of the one that is there; it is on disk when this returns."""
        content = json.dumps(asdict(note)).encode()
        write_atomically(self._file(digest), content, mode=PRIVATE_FILE)

    def _file(self, digest: bytes) -> Path:
        return self._folder / f"{digest.hex()}{SUFFIX}"
