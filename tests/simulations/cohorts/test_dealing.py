"""Each person is dealt to one place, whatever the records say; what is left out is counted."""

import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consilium.client.sources.common.source import Patient, ReadReport, Stay, Tally
from consilium.shared.errors import DataError, SettingsError
from consilium.shared.study.definition import Study
from consilium.simulations.cohorts.dealing import EVERYBODY, Dealing, DealtSource, Pool, Rules
from consilium.simulations.cohorts.partitions import Records
from tests.study_text import small_study

DAY_US = 86_400_000_000
Persons = Mapping[str, Sequence[tuple[str, int]]]  # by identifier: ward and day of each stay


class Wards:
    """A source of persons whose stays have a ward and a day; nothing was measured."""

    name = "tables"

    def __init__(self, persons: Persons, *, dated: bool = True) -> None:
        self.persons, self.dated = persons, dated

    @property
    def report(self) -> ReadReport:
        return Tally(patients=len(self.persons)).report()

    def stay_column(self, column: str) -> Mapping[str, str]:
        return {f"{p}/{n}": ward for p, stays in self.persons.items()
                for n, (ward, _) in enumerate(stays)}  # fmt: skip  # reads as one

    def read_patients(self, study: Study) -> Iterator[Patient]:
        none = np.zeros(0, dtype=np.float32)
        for person, stays in self.persons.items():
            yield Patient(
                patient_id=person,
                stays=tuple(
                    Stay(
                        stay_id=f"{person}/{n}",
                        hours_E=none,
                        variable_E=none.astype(np.int16),
                        value_E=none,
                        label=0.0,
                        start_us=(1 + day) * DAY_US if self.dated else None,
                    )
                    for n, (_, day) in enumerate(stays)
                ),
            )


class WithoutColumns(Wards):
    stay_column = None  # type: ignore[assignment]


def pool(
    persons: Persons, *sites: str, group: str = "", kind: type[Wards] = Wards, **how: Any
) -> Pool:
    return Pool(
        records=Records(kind(persons, **how)), where=group or "file", group=group, sites=sites
    )


def places(dealing: Dealing) -> dict[str, list[str]]:
    """The places at which each person is."""
    dealt = dealing.dealt(small_study())
    found: dict[str, list[str]] = {}
    for where in (dealt.held, dealt.test):
        for name, patients in where.items():
            for patient in patients:
                found.setdefault(patient.patient_id, []).append(name)
    return found


stays = st.lists(
    st.tuples(st.sampled_from(["A", "B", "C", ""]), st.integers(0, 30)), min_size=1, max_size=3
)
people = st.dictionaries(st.integers(0, 99).map(str), stays, min_size=1, max_size=40)
ALL = {f"{n}{ward}": [(ward, 0)] for ward in "ABC" for n in range(20)}  # nobody's site is empty
COLUMN = Rules(column="ward", site_of_value={"A": "a", "B": "b", "C": "c"}, share=0.2)


@settings(max_examples=40)
@given(persons=people, by_site=st.booleans(), day=st.one_of(st.none(), st.integers(0, 30)))
def test_nobody_is_at_two_places_and_no_stay_from_the_tests_date_on_is_trained_on(
    persons: Persons, by_site: bool, day: int | None
) -> None:
    date = None if day is None else dt.date(1970, 1, 2) + dt.timedelta(days=day)
    rules = Rules(
        column="ward",
        site_of_value=COLUMN.site_of_value,
        share=None if date else 0.2,
        test_from=date,
        by_site=by_site,
    )
    early = {name: [(ward, -1)] for name, [(ward, _)] in ALL.items()}
    dealing = Dealing(("a", "b", "c"), [pool({**early, **persons}, "a", "b", "c")], [], rules)
    found = places(dealing)
    assert all(len(where) == 1 for where in found.values())
    dealt = dealing.dealt(small_study())
    blank = {p for p, all_stays in persons.items() if not any(ward for ward, _ in all_stays)}
    tested = {p.patient_id for patients in dealt.test.values() for p in patients}
    assert set(found) - tested == set(found) - tested - blank
    if day is not None:
        for patients in dealt.held.values():
            assert all((s.start_us or 0) < (1 + day) * DAY_US for p in patients for s in p.stays)
        for patients in dealt.test.values():
            assert all((s.start_us or 0) >= (1 + day) * DAY_US for p in patients for s in p.stays)


@settings(max_examples=40)
@given(first=people, second=people)
def test_a_person_of_two_files_counts_once_where_they_come_first_or_is_refused(
    first: Persons, second: Persons
) -> None:
    pools = [pool(first, "a", group="a"), pool(second, "b", group="b")]
    both = set(first) & set(second)
    same = Dealing(("a", "b"), pools, [], Rules(persons="same"))
    if both == set(second):
        with pytest.raises(DataError, match="site b has no person"):
            same.dealt(small_study())
    else:
        found = places(same)
        assert found == {p: ["a"] for p in first} | {p: ["b"] for p in set(second) - both}
        counted = same.dealt(small_study()).left_out
        assert counted == ({"persons that come first in other records": len(both)} if both else {})
    own = Dealing(("a", "b"), pools, [], Rules(persons="own"))
    dealt = own.dealt(small_study())
    assert [len(dealt.held["a"]), len(dealt.held["b"])] == [len(first), len(second)]
    unsaid = Dealing(("a", "b"), pools, [], Rules())
    if both:
        with pytest.raises(DataError, match=r"identifier of a person that a has.*--persons own"):
            unsaid.dealt(small_study())
    else:
        assert len(places(unsaid)) == len(first) + len(second)


def test_a_person_trained_on_is_not_tested_on_in_records_of_the_test() -> None:
    pools = [pool({"1": [("", 0)], "2": [("", 0)]}, "a", group="a")]
    test = [pool({"2": [("", 0)], "3": [("", 0)]})]
    found = places(Dealing(("a",), pools, test, Rules(persons="same")))
    assert found == {"1": ["a"], "2": ["a"], "3": [EVERYBODY]}
    with pytest.raises(DataError, match="--persons same"):
        Dealing(("a",), pools, test, Rules()).dealt(small_study())


def test_a_person_belongs_to_the_first_ward_that_is_named() -> None:
    persons = {"1": [("", 0), ("B", 1), ("A", 2)], "2": [("A", 0), ("B", 1)], "3": [("C", 0)]}
    rules = Rules(column="ward", site_of_value=COLUMN.site_of_value)
    dealing = Dealing(("a", "b", "c"), [pool(persons)], [], rules)
    assert places(dealing) == {"1": ["b"], "2": ["a"], "3": ["c"]}


def test_wards_that_the_study_does_not_name_and_blanks_are_left_out_and_counted() -> None:
    persons = ALL | {"x": [("", 0)], "y": [("D", 0)]}
    rules = Rules(column="ward", site_of_value={"A": "a", "B": "b"})
    dealt = Dealing(("a", "b"), [pool(persons)], [], rules).dealt(small_study())
    assert dealt.left_out == {
        "persons without a value in 'ward'": 1,
        "persons of sites that the study does not name": 21,
    }


def test_a_column_can_say_who_is_tested() -> None:
    persons = {"1": [("A", 0), ("B", 1)], "2": [("B", 0), ("A", 1)], "3": [("A", 0)]}
    rules = Rules(test_column="ward", test_values=("B",))
    dealing = Dealing(("a",), [pool(persons, "a")], [], rules)
    assert places(dealing) == {"1": ["a"], "2": [EVERYBODY], "3": ["a"]}


def test_more_sites_than_persons_are_refused() -> None:
    sites = tuple(f"s{n}" for n in range(90))
    with pytest.raises(DataError, match="has no person to train on: 60 are dealt to 90 sites"):
        Dealing(sites, [pool(ALL, *sites)], [], Rules()).dealt(small_study())


def test_a_date_needs_dates_and_a_column_needs_columns() -> None:
    dated = Rules(test_from=dt.date(2024, 1, 1))
    undated = Dealing(("a",), [pool(ALL, "a", dated=False)], [], dated)
    with pytest.raises(SettingsError, match="have no dates"):
        undated.dealt(small_study())
    without = Dealing(("a", "b", "c"), [pool(ALL, kind=WithoutColumns)], [], COLUMN)
    with pytest.raises(SettingsError, match="has no columns to deal persons by"):
        without.dealt(small_study())


def test_a_part_counts_its_own_persons_and_whom_it_left_out() -> None:
    dealing = Dealing(("a", "b", "c"), [pool(ALL, "a", "b", "c")], [], COLUMN)
    part = DealtSource(dealing, "a", test=False)
    kept = list(part.read_patients(small_study()))
    assert part.report.patients == len(kept)
    assert part.report.filtered == 60 - len(kept)
    assert part.name == "tables"
