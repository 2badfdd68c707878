"""Hashes that place persons: at a simulated site, or into the test.

A hash of the person's identifier gives the same split in every run, whatever else is read, and
keeps all of a person's stays together.
"""

import hashlib

from consilium.client.sources.common.source import Patient, Source
from consilium.shared.study.definition import Study

TEST_SHARE = 0.2


class Records:
    """A source whose patients are read once and kept, so that several parts can use them."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self._read_for: object = None
        self._patients: tuple[Patient, ...] = ()

    def patients(self, study: Study) -> tuple[Patient, ...]:
        """Return all patients, as the source yields them for this study."""
        meaning = meaning_of(study)
        if self._read_for != meaning:
            self._patients = tuple(self.source.read_patients(study))
            self._read_for = meaning
        return self._patients


def meaning_of(study: Study) -> object:
    """Return what of a study decides which patients a source yields, and what they hold."""
    return study.data, tuple(study.variables.items()), study.tokens, study.task


def place_of(identifier: str, purpose: str, key: str = "") -> float:
    """Return a hash of identifier and purpose as a number in [0, 1), evenly spread.

    Args:
        identifier: the person's.
        purpose: another purpose gives an independent place.
        key: another key gives an independent place, too.
    """
    content = f"consilium {purpose}\0{identifier}"
    digest = hashlib.sha256((f"{key}\0{content}" if key else content).encode()).digest()
    return int.from_bytes(digest[:6], "big") / (1 << 48)


def is_test(identifier: str, share: float = TEST_SHARE, key: str = "") -> bool:
    """Return whether a patient is kept for the test, so that no site trains on it."""
    return place_of(identifier, "test", key) < share


def site_of(identifier: str, sites: int, key: str = "") -> int:
    """Return the number of the site, below ``sites``, at which a patient is."""
    return int(place_of(identifier, "site", key) * sites)
