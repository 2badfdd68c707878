"""Hashes that place persons: even, the same in every run, other with another key."""

from collections.abc import Iterator

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from consilium.client.sources.common.source import Patient, ReadReport, Tally
from consilium.shared.study.definition import Study
from consilium.simulations.cohorts.partitions import Records, is_test, place_of, site_of
from tests.study_text import small_study


class Counting:
    """A source of empty patients that counts how often it is read."""

    name = "tables"

    def __init__(self, patients: int) -> None:
        self.patients, self.read = patients, 0

    @property
    def report(self) -> ReadReport:
        return Tally(patients=self.patients, filtered=2).report()

    def read_patients(self, study: Study) -> Iterator[Patient]:
        self.read += 1
        return (Patient(patient_id=f"p{n}", stays=()) for n in range(self.patients))


@given(identifier=st.text(max_size=20), sites=st.integers(1, 50), key=st.text(max_size=5))
def test_every_person_is_at_one_of_the_sites(identifier: str, sites: int, key: str) -> None:
    assert 0 <= site_of(identifier, sites, key) < sites


def test_sites_are_even_and_the_test_has_its_share() -> None:
    names = [f"p{n}" for n in range(20_000)]
    share = np.mean([is_test(name) for name in names])
    assert 0.19 < share < 0.21
    sizes = np.bincount([site_of(name, 4) for name in names])
    assert max(sizes) / min(sizes) < 1.1


def test_a_persons_place_never_changes_but_with_the_key() -> None:
    assert place_of("p1", "test") == place_of("p1", "test")
    assert place_of("p1", "test") != place_of("p1", "site")
    assert place_of("p1", "test", "other") != place_of("p1", "test")
    assert [name for name in map(str, range(12)) if is_test(name)] == ["0", "5"]


def test_records_are_read_once_for_one_meaning() -> None:
    source = Counting(10)
    records = Records(source)
    assert len(records.patients(small_study())) == 10
    records.patients(small_study(privacy={"mode": "site", "epsilon": 3.0}))
    assert source.read == 1
    records.patients(small_study(data={"window_h": 7}))
    assert source.read == 2
