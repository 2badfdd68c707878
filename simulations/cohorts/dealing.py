"""Deals the persons of records to sites and to the test, each person to one place alone.

Guarantee: nobody is at two sites, or at a site and in the test. Where one person's stays would say
both, the first stay decides, and no stay from the test's date on is trained on.
"""

import datetime as dt
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from consilium.client.sources.common.source import Patient, ReadReport, WithColumns
from consilium.shared.errors import DataError, SettingsError
from consilium.shared.study.definition import Study
from consilium.simulations.cohorts.partitions import Records, is_test, meaning_of, site_of

EVERYBODY = "test"  # the only group, if test persons are not told apart
PersonsAre = Literal["same", "own"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Pool:
    """Records that are read together.

    Attributes:
        records: the records, read once.
        where: names them in sentences.
        group: the owner's name, and that of the group of its test persons; empty if each person
            is in the group of their site.
        sites: the sites to which a hash deals the persons; with a column, all of its sites.
    """

    records: Records
    where: str
    group: str
    sites: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, eq=False)
class Rules:
    """How the persons of pools are dealt out.

    Attributes:
        key: of the hashes.
        column: if given, the column of the stays that names a person's site.
        site_of_value: the site of each of the column's values.
        share: of the persons, who are kept for the test by a hash.
        test_column: if given, the column of the stays that says who is kept for the test.
        test_values: its values that say so.
        test_from: if given, persons whose first stay begins on this date or later are kept.
        persons: whether an identifier in two pools is the same person; None refuses such pools.
        by_site: whether test persons are told apart.
    """

    key: str = ""
    column: str | None = None
    site_of_value: Mapping[str, str] = field(default_factory=dict)
    share: float | None = None
    test_column: str | None = None
    test_values: tuple[str, ...] = ()
    test_from: dt.date | None = None
    persons: PersonsAre | None = None
    by_site: bool = False


@dataclass(kw_only=True)
class Dealt:
    """The persons of one reading by site and by test group, and what was left out, in counts."""

    held: dict[str, list[Patient]]
    test: dict[str, list[Patient]]
    left_out: dict[str, int] = field(default_factory=dict)

    def leave_out(self, reason: str, number: int = 1) -> None:
        """Count what was left out."""
        self.left_out[reason] = self.left_out.get(reason, 0) + number


class Dealing:
    """The persons of some pools, dealt out once for all who ask.

    Args:
        sites: the sites that take part.
        pools: the records of sites, in order.
        tests: records of the test alone; unless given, the rules choose among the pools' persons.
        rules: how.
    """

    def __init__(
        self, sites: Sequence[str], pools: Sequence[Pool], tests: Sequence[Pool], rules: Rules
    ) -> None:
        self._sites, self._pools, self._tests = tuple(sites), tuple(pools), tuple(tests)
        self._rules = rules
        self._for: object = None
        self._dealt = Dealt(held={}, test={})

    def without_tests(self) -> "Dealing":
        """Return the same dealing of those who train, which never opens records of the test alone.

        Whom the rules keep for the test among the sites' own records is at no site here either.
        """
        return Dealing(self._sites, self._pools, (), self._rules)

    @property
    def groups(self) -> tuple[str, ...]:
        """The names of the groups of test persons."""
        if not self._rules.by_site:
            return (EVERYBODY,)
        groups = [pool.group for pool in self._tests or self._pools]
        return tuple(dict.fromkeys(groups)) if all(groups) else self._sites

    def dealt(self, study: Study) -> Dealt:
        """Return who is where, as the records are for this study.

        Raises:
            DataError: the records cannot be read, an identifier occurs in two of them, or a site
                has no person.
            SettingsError: the records do not have what the rules ask for.
        """
        meaning = meaning_of(study)
        if self._for != meaning:
            self._dealt = self._deal(study)
            self._for = meaning
        return self._dealt

    def pool_of(self, place: str, *, test: bool) -> Pool:
        """Return the pool, or the first, from which a site or a test group has its persons."""
        pools = (self._tests or self._pools) if test else self._pools
        return next((p for p in pools if place == p.group or place in p.sites), pools[0])

    def _deal(self, study: Study) -> Dealt:
        found = Dealt(
            held={site: [] for site in self._sites}, test={group: [] for group in self.groups}
        )
        seen: dict[str, Pool] = {}
        for pool in self._pools:
            self._deal_pool(pool, study, seen, found)
        for pool in self._tests:
            for patient in pool.records.patients(study):
                if self._first_time(patient, pool, seen, found):
                    found.test[pool.group if self._rules.by_site else EVERYBODY].append(patient)
        if empty := [site for site, patients in found.held.items() if not patients]:
            persons = sum(map(len, found.held.values()))
            raise DataError(
                f"site {empty[0]} has no person to train on: {persons} are dealt to "
                f"{len(found.held)} sites; choose fewer sites, or correct its records"
            )
        return found

    def _deal_pool(self, pool: Pool, study: Study, seen: dict[str, Pool], found: Dealt) -> None:
        """Deal out the persons of one pool."""
        site_of_person, is_tested = self._sites_of(pool), self._tests_of(pool)
        for patient in pool.records.patients(study):
            if not self._first_time(patient, pool, seen, found):
                continue
            site, tested = site_of_person(patient), is_tested(patient)
            if tested and not self._rules.by_site:
                found.test[EVERYBODY].append(patient)
            elif site is None:
                found.leave_out(f"persons without a value in {self._rules.column!r}")
            elif site not in found.held:
                found.leave_out("persons of sites that the study does not name")
            elif tested:
                found.test[pool.group or site].append(patient)
            elif (trained := self._before(patient, found)) is not None:
                found.held[site].append(trained)

    def _first_time(
        self, patient: Patient, pool: Pool, seen: dict[str, Pool], found: Dealt
    ) -> bool:
        """Return whether the person counts: not yet seen in another pool.

        Raises:
            DataError: the identifier was seen, and nobody said whether that is the same person.
        """
        first = seen.setdefault(patient.patient_id, pool)
        if first is pool or self._rules.persons == "own":
            return True
        if self._rules.persons is None:
            raise DataError(
                f"{pool.where} has an identifier of a person that {first.where} has, too; say "
                "whether such persons are the same, who then count once where they come first "
                "(--persons same), or every file numbers its own (--persons own)"
            )
        found.leave_out("persons that come first in other records")
        return False

    def _sites_of(self, pool: Pool) -> Callable[[Patient], str | None]:
        """Return a function from a person of the pool to their site, None if it is not known."""
        rules = self._rules
        if rules.column is None:
            return lambda person: pool.sites[site_of(person.patient_id, len(pool.sites), rules.key)]
        value_of = column_of(pool, rules.column)

        def site(person: Patient) -> str | None:
            values = (value_of.get(stay.stay_id, "") for stay in person.stays)
            value = next((value for value in values if value), None)
            if value is None:
                value = "" if "" in rules.site_of_value else None
            return None if value is None else rules.site_of_value.get(value, "")

        return site

    def _tests_of(self, pool: Pool) -> Callable[[Patient], bool]:
        """Return a function that says whether a person of the pool is kept for the test."""
        rules, share = self._rules, self._rules.share
        if rules.test_column is not None:
            value_of = column_of(pool, rules.test_column)
            return lambda p: value_of.get(p.stays[0].stay_id, "") in rules.test_values
        if rules.test_from is not None:
            first_us = _microseconds(rules.test_from)
            return lambda p: min(_start(stay.start_us, pool) for stay in p.stays) >= first_us
        if share is not None:
            return lambda p: is_test(p.patient_id, share, rules.key)
        return lambda _: False

    def _before(self, patient: Patient, found: Dealt) -> Patient | None:
        """Return the person's stays before the test's date, if there is one."""
        if self._rules.test_from is None:
            return patient
        first_us = _microseconds(self._rules.test_from)
        stays = tuple(stay for stay in patient.stays if (stay.start_us or 0) < first_us)
        if dropped := len(patient.stays) - len(stays):
            found.leave_out("stays of training persons from the test's date on", dropped)
        return replace(patient, stays=stays) if stays else None


class DealtSource:
    """The persons of one site, or of one test group; a source like any other."""

    def __init__(self, dealing: Dealing, place: str, *, test: bool) -> None:
        self._dealing, self._place, self._test = dealing, place, test
        self._pool = dealing.pool_of(place, test=test)
        self._kept = 0

    @property
    def name(self) -> str:
        """The name of the source, which is the same for all parts."""
        return self._pool.records.source.name

    @property
    def report(self) -> ReadReport:
        """Counts of the records that were read; ``patients`` counts only this part's."""
        report = self._pool.records.source.report
        others = max(0, report.patients - self._kept)
        return replace(report, patients=self._kept, filtered=report.filtered + others)

    def read_patients(self, study: Study) -> Iterator[Patient]:
        """Yield the part's persons in the source's order.

        Raises:
            DataError: as :meth:`Dealing.dealt`.
        """
        dealt = self._dealing.dealt(study)
        patients = (dealt.test if self._test else dealt.held)[self._place]
        self._kept = len(patients)
        yield from patients


def column_of(pool: Pool, column: str) -> Mapping[str, str]:
    """Return the value of a column for each stay of a pool.

    Raises:
        SettingsError: its source has no columns.
        DataError: it has no such column.
    """
    source = pool.records.source
    if not isinstance(source, WithColumns):
        raise SettingsError(
            f"{pool.where}: source {source.name!r} has no columns to deal persons by; deal them by "
            "a hash (--sites N), or give the settings of each site"
        )
    return source.stay_column(column)


def _microseconds(date: dt.date) -> int:
    """Return the date's midnight in microseconds since 1970, as stays' starts are counted."""
    return (date - dt.date(1970, 1, 1)).days * 86_400_000_000


def _start(start_us: int | None, pool: Pool) -> int:
    if start_us is None:
        raise SettingsError(
            f"{pool.where}: its stays have no dates, so a date cannot split them; name their "
            "start, or choose the test by a fraction, a column or a further file"
        )
    return start_us
