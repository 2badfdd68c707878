"""Parts of records: disjoint, complete, the same in every run."""

from collections.abc import Iterator

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from consilium.client.sources.common.source import Patient, ReadReport, Tally
from consilium.shared.study.definition import Study
from consilium.simulations.cohorts.partitions import Records, SubsetSource, is_test, parts, place_of
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


def ids(part: SubsetSource) -> list[str]:
    return [patient.patient_id for patient in part.read_patients(small_study())]


@given(patients=st.integers(0, 200), sites=st.integers(1, 7))
def test_every_patient_is_at_one_site_or_in_the_test(patients: int, sites: int) -> None:
    held, test = parts(Records(Counting(patients)), tuple(f"s{n}" for n in range(sites)))
    everyone = [name for part in (*held.values(), test) for name in ids(part)]
    assert sorted(everyone) == sorted(f"p{n}" for n in range(patients))


def test_parts_are_even_and_the_test_has_its_share() -> None:
    held, test = parts(Records(Counting(20_000)), ("a", "b", "c", "d"))
    assert len(ids(test)) / 20_000 == np.clip(len(ids(test)) / 20_000, 0.19, 0.21)
    sizes = [len(ids(part)) for part in held.values()]
    assert max(sizes) / min(sizes) < 1.1


def test_a_patients_place_never_changes() -> None:
    assert place_of("p1", "test") == place_of("p1", "test")
    assert place_of("p1", "test") != place_of("p1", "site")
    assert [name for name in map(str, range(12)) if is_test(name)] == ["0", "5"]


def test_records_are_read_once_for_one_meaning() -> None:
    source = Counting(10)
    records = Records(source)
    part = SubsetSource(records, lambda name: name != "p3")
    assert len(ids(part)) == 9
    ids(SubsetSource(records, lambda _: True))
    assert source.read == 1
    list(part.read_patients(small_study(data={"window_h": 7})))
    assert source.read == 2


def test_the_report_counts_whom_the_part_left_out() -> None:
    part = SubsetSource(Records(Counting(10)), lambda name: name in ("p1", "p2"))
    ids(part)
    assert (part.report.patients, part.report.filtered) == (2, 10)
