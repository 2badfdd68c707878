"""What a hospital keeps of the cohort that it approved for a study, to tell when it has moved.

Databases of a hospital live: persons come, outcomes are corrected. Beside each approval lies a file
(mode 0600, never sent) with the cohort as it was approved and as it was last read for a round: a
keyed fingerprint (:mod:`consilium.client.records.fingerprint`), and the numbers, so that a
difference can be named.
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from consilium.shared.files.atomic_file import write_atomically
from consilium.shared.files.permissions import PRIVATE_FILE
from consilium.shared.files.strict_toml import StrictTable

SUFFIX = ".cohort"

Count = Annotated[int, Field(ge=0)]

log = logging.getLogger(__name__)


class CohortNote(StrictTable):
    """A cohort at one time; ``stays`` are the study's rows: stays, or windows of them.

    ``outcomes`` are persons by outcome; ``opted_out`` are persons left out because they opted out.
    """

    at: str
    fingerprint: str = Field(pattern="^[0-9a-f]{64}$")
    persons: Count
    stays: Count
    outcomes: Mapping[str, Count]
    opted_out: Count


class CohortNotes(StrictTable):
    """The cohort as it was approved, and as it was last read for a round."""

    approved: CohortNote
    seen: CohortNote

    @property
    def moved(self) -> str:
        """What changed, such as ``persons +12, stays +15``; empty if nothing did."""
        before, after = self.approved, self.seen
        if before.fingerprint == after.fingerprint:
            return ""
        names = dict.fromkeys((*before.outcomes, *after.outcomes))
        changes = {
            "persons": after.persons - before.persons,
            "stays": after.stays - before.stays,
            **{f"with {name}": after.outcomes.get(name, 0) - before.outcomes.get(name, 0)
               for name in names},
            "opted out": after.opted_out - before.opted_out,
        }  # fmt: skip
        told = [f"{what} {change:+d}" for what, change in changes.items() if change]
        return ", ".join(told) or "the same numbers, but other persons, stays or outcomes"


def note_approved(approvals: Path, digest: bytes, note: CohortNote) -> None:
    """Keep the cohort of a study that is about to be approved, in the folder of approvals."""
    _write(approvals, digest, CohortNotes(approved=note, seen=note))


def note_seen(approvals: Path, digest: bytes, note: CohortNote) -> CohortNotes:
    """Keep the cohort as it was read for a round; return it with the one that was approved.

    Of a study that an earlier version approved the first cohort seen stands for the approved one.
    That the file cannot be written is only logged: a round must not depend on it.
    """
    known = read_notes(approvals, digest)
    if known is not None and known.seen.fingerprint == note.fingerprint:
        return known
    notes = CohortNotes(approved=note if known is None else known.approved, seen=note)
    try:
        _write(approvals, digest, notes)
    except OSError as error:
        log.warning("the cohort's note could not be written: %s", error.strerror)
    return notes


def read_notes(approvals: Path, digest: bytes) -> CohortNotes | None:
    """Return what is known of a study's cohort; None if there is no such file, or a damaged one."""
    file = _file(approvals, digest)
    try:
        return CohortNotes.model_validate_json(file.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError):
        log.warning("%s: cannot be read; approve the study again, which writes it anew", file)
        return None


def _write(approvals: Path, digest: bytes, notes: CohortNotes) -> None:
    content = notes.model_dump_json().encode()
    write_atomically(_file(approvals, digest), content, mode=PRIVATE_FILE)


def _file(approvals: Path, digest: bytes) -> Path:
    return approvals / f"{digest.hex()}{SUFFIX}"
