"""Splits real records: which patients a simulated site holds, and which are kept for the test.

Where records name their hospital, that is the site. Elsewhere a hash of the patient's identifier
decides: it gives the same split in every run, whatever else is read, and keeps all of a person's
stays together.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from consilium.client.sources.common.source import Patient, ReadReport, Source
from consilium.shared.study.definition import Study

TEST_SHARE = 0.2
Keep = Callable[[str], bool]


class Records:
    """A source whose patients are read once and kept, so that several parts can use them."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self._read_for: object = None
        self._patients: tuple[Patient, ...] = ()

    def patients(self, study: Study) -> tuple[Patient, ...]:
        """Return all patients, as the source yields them for this study."""
        meaning = (study.data, tuple(study.variables.items()), study.tokens, study.task)
        if self._read_for != meaning:
            self._patients = tuple(self.source.read_patients(study))
            self._read_for = meaning
        return self._patients


class SubsetSource:
    """The patients of some records whose identifier is kept; a source like any other."""

    def __init__(self, records: Records, keep: Keep) -> None:
        self._records, self._keep = records, keep
        self._filtered = self._kept = 0

    @property
    def name(self) -> str:
        """The name of the source, which is the same for all parts."""
        return self._records.source.name

    @property
    def report(self) -> ReadReport:
        """Counts of all records that were read; ``patients`` counts only this part's."""
        report = self._records.source.report
        return replace(report, patients=self._kept, filtered=report.filtered + self._filtered)

    def read_patients(self, study: Study) -> Iterator[Patient]:
        """Yield the part's patients in the source's order.

        Raises:
            DataError: as the source does.
        """
        self._filtered = self._kept = 0
        for patient in self._records.patients(study):
            if self._keep(patient.patient_id):
                self._kept += 1
                yield patient
            else:
                self._filtered += 1


def place_of(identifier: str, purpose: str) -> float:
    """Return a hash of identifier and purpose as a number in [0, 1), evenly spread."""
    digest = hashlib.sha256(f"consilium {purpose}\0{identifier}".encode()).digest()
    return int.from_bytes(digest[:6], "big") / (1 << 48)


def is_test(identifier: str, share: float = TEST_SHARE) -> bool:
    """Return whether a patient is kept for the test, so that no site trains on it."""
    return place_of(identifier, "test") < share


def parts(
    records: Records, sites: tuple[str, ...], *, share: float = TEST_SHARE
) -> tuple[Mapping[str, Source], Source]:
    """Split records into sites of about equal size, and the test's patients.

    Returns:
        The sites' sources by name, and the test's.
    """

    def of_site(number: int) -> Keep:
        def keep(patient: str) -> bool:
            mine = int(place_of(patient, "site") * len(sites)) == number
            return mine and not is_test(patient, share)

        return keep

    held = {site: SubsetSource(records, of_site(number)) for number, site in enumerate(sites)}
    return held, SubsetSource(records, lambda patient: is_test(patient, share))
