"""The records a study is run on: synthetic, a public collection, own files, frames or sources."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from os import PathLike, fspath
from pathlib import Path
from types import MappingProxyType
from typing import Any

from consilium.client.sources.common.source import Source
from consilium.shared.errors import SettingsError
from consilium.shared.study.definition import Study
from consilium.simulations.api.record_frames import Columns, FrameRecords
from consilium.simulations.cohorts.cohorts import Cohorts
from consilium.simulations.cohorts.dealing import PersonsAre
from consilium.simulations.cohorts.given_records import Given, simulated
from consilium.simulations.cohorts.records_file import Test, read_records_file, test_given
from consilium.simulations.cohorts.records_plan import Choice, Simulated, simulated_collection
from consilium.simulations.cohorts.study_cohorts import SYNTHETIC, cohorts_for
from consilium.simulations.cohorts.study_records import records_of

FilePath = str | PathLike[str]
TEST = "test"  # name of the only group, if it is not known whose the test patients are


@dataclass(frozen=True, kw_only=True, eq=False)
class Records:
    """A source of records for every site, and the patients to test on.

    A source is any object with ``name``, ``report`` and ``read_patients(study)``, as in
    :class:`consilium.Source`. It is read several times and must yield the same patients in the
    same order each time.

    Attributes:
        sites: for each of the study's sites, by name, a source.
        test: patients on whom no site trains: one source, or one by hospital; with the latter
            there are also figures by hospital.
        described: who the test patients are, for tables and the report.
        synthetic: whether the patients are generated; tables and the report say so.

    Raises:
        SettingsError: one of these is not a source, or there is no site.
    """

    sites: Mapping[str, Source]
    test: Source | Mapping[str, Source]
    described: str = "test patients given by the researcher"
    synthetic: bool = False

    def __post_init__(self) -> None:
        tests = self.test if isinstance(self.test, Mapping) else {TEST: self.test}
        if not isinstance(self.sites, Mapping) or not self.sites or not tests:
            raise SettingsError(
                "records: sites must name a source for each of the study's sites, and test must "
                "be a source, or one by hospital; give both"
            )
        for place, sources in (("sites", self.sites), ("test", tests)):
            for name, source in sources.items():
                if not callable(getattr(source, "read_patients", None)):
                    raise SettingsError(
                        f"records: {place} {name!r} is a {type(source).__name__}, not a source of "
                        "patients; give an object with read_patients(study)"
                    )
        object.__setattr__(self, "sites", MappingProxyType(dict(self.sites)))
        object.__setattr__(self, "test", MappingProxyType(dict(tests)))

    @staticmethod
    def from_settings(
        settings: FilePath | Sequence[FilePath] | Mapping[str, FilePath],
        *,
        data: FilePath | None = None,
        sites: int | None = None,
        column: str | None = None,
        test: float | str | None = None,
        persons: PersonsAre | None = None,
        key: str | None = None,
    ) -> "DealtRecords":
        """Return records that files of settings name, as a hospital's ``site.toml`` does.

        docs/own-records.md has the files, and says how persons are dealt out.

        Args:
            settings: one file of a collection, which is dealt to sites; or a file for each site, in
                a list, or by the site's name.
            data: folder at which the relative paths of a collection start; unless given, that of
                the file.
            sites: deal a collection to so many sites, by a hash; unless given, the study's, or as
                the file says.
            column: deal a collection by this column of the stays, a site for each value.
            test: whom to test on: a fraction of the persons, ``COLUMN=VALUE``, a date, or a further
                file, ``FILE.toml``; unless given, as the file says, or a fifth of the persons.
            persons: whether an identifier in two files is the ``same`` person, who then counts
                once, or each file's ``own``; unless given, such an identifier is refused.
            key: of the hash; another key deals persons out otherwise.

        Raises:
            SettingsError: a sentence that says what contradicts what.
        """
        choice = Choice(sites=sites, column=column, test=_test(test), persons=persons, key=key)
        where = None if data is None else Path(data)
        if isinstance(settings, str | PathLike):
            return DealtRecords(Given(records=Path(settings), data=where, choice=choice))
        named = (
            [f"{site}={fspath(file)}" for site, file in settings.items()]
            if isinstance(settings, Mapping)
            else [fspath(file) for file in settings]
        )
        if not named:
            raise SettingsError("records: no settings were given; name a file for each site")
        return DealtRecords(Given(settings=named, data=where, choice=choice))

    @staticmethod
    def from_frames(
        stays: Any,
        events: Any,
        *,
        person: str,
        site: str | None = None,
        sites: int | None = None,
        test: float | str | None = None,
        key: str | None = None,
        variables: Mapping[str, Mapping[str, Any]] | None = None,
        units: Mapping[str, str] | None = None,
        in_study_units: bool = False,
        **columns: str | None,
    ) -> "DealtRecords":
        """Return records in two data frames, of polars or pandas.

        Args:
            stays: a row for each stay: person, the study's label, and static variables by their
                names. Columns called ``stay``, ``start``, ``end``, ``birth`` and ``outcome_time``
                mean what they mean in ``[data.stays]``.
            events: a row for each measurement, with columns ``variable``, ``value`` and perhaps
                ``unit``; or, without a column ``variable``, a column for each variable. Its
                ``stay``, or the person where persons have one stay, says whose it is; ``time``, or
                ``hours`` since the stay's start, says when.
            person: the column of both frames that identifies the person.
            site: the column of the stays whose values are the sites; unless given, persons are
                dealt out by a hash.
            sites: number of sites for the hash; the study's unless given.
            test: whom to test on, as :meth:`from_settings` takes it; a fifth of the persons unless
                given.
            key: of the hash.
            variables: as ``[data.variables]``, such as ``{"HR": {"codes": ["8867-4"]}}``.
            units: as ``[data] units``: the UCUM unit for each of the frames' spellings.
            in_study_units: whether values without a unit are in the study's units; otherwise they
                are refused.
            columns: other names of the columns above, such as ``start="admitted"``; ``label``
                names the label's column.

        Raises:
            SettingsError: polars is not installed, or a frame has no such column.
        """
        frames = FrameRecords(
            stays,
            events,
            Columns.of(person, columns),
            variables=variables or {},
            units=units or {},
            in_study_units=in_study_units,
        )
        return DealtRecords(
            Given(choice=Choice(sites=sites, column=site, test=_test(test), key=key)), frames
        )


class DealtRecords:
    """Records that are dealt to sites when the study is known; :class:`Records` makes them."""

    def __init__(self, given: Given, frames: FrameRecords | None = None) -> None:
        self._given, self._frames = given, frames

    def simulated(self, study: Study, *, by_site: bool = False) -> Simulated:
        """Return the study with the records' sites, and its cohorts.

        Args:
            study: what is run.
            by_site: whether test persons are told apart, even if their sites are made up.
        """
        choice = replace(self._given.choice, by_site=by_site)
        if self._frames is None or study.data.source in SYNTHETIC:
            return simulated(study, replace(self._given, choice=choice))
        return simulated_collection(study, self._frames.collection(study), choice)

    def __repr__(self) -> str:
        named = self._given.records or ", ".join(self._given.settings) or "data frames"
        return f"DealtRecords({named})"


def _test(given: float | str | None) -> Test | None:
    return None if given is None else test_given(str(given))


RecordsGiven = Records | DealtRecords | str | PathLike[str] | None
"""What may be given: nothing, the folder of a public collection, files, frames or sources."""


def cohorts_of(study: Study, records: RecordsGiven, *, by_site: bool = False) -> Simulated:
    """Return the study, with the sites that the records have, and the cohorts it is run on.

    Args:
        study: names the sites and the kind of records.
        records: None for a study with synthetic patients; the folder of its public collection; the
            caller's own settings, frames or sources.
        by_site: whether test persons are told apart, even if their sites are made up.

    Raises:
        SettingsError: records were not given, do not exist, were given though the study's patients
            are synthetic, or are of other sites than the study's.
        StudyError: the study is not valid with the records' sites.
        DataError: the records cannot be read.
    """
    if isinstance(records, Records):
        return study, _given(study, records)
    if isinstance(records, DealtRecords):
        return records.simulated(study, by_site=by_site)
    if records is not None and not isinstance(records, str | PathLike):
        raise SettingsError(
            f"records: {type(records).__name__} is neither a folder nor consilium.Records; give "
            "one of these"
        )
    folder = None if records is None else Path(records)
    if study.data.source in SYNTHETIC and folder is not None:
        raise SettingsError(
            f"study {study.name}: its patients are synthetic, so records have no use; leave them "
            "out"
        )
    if folder is not None and not folder.exists():
        raise SettingsError(f"study {study.name}: records {folder} do not exist; correct the path")
    needed = None if folder is not None else records_of(study)
    if needed is not None and (wanted := read_records_file(needed).records.files) is not None:
        raise SettingsError(
            f"study {study.name}: no records were given; give the folder that holds {wanted}"
        )
    return study, cohorts_for(study, folder, by_site=by_site)


def _given(study: Study, records: Records) -> Cohorts:
    """Return the cohorts of the caller's sources, sites in the study's order."""
    asked, given = set(study.sites), set(records.sites)
    if lacking := sorted(asked - given):
        raise SettingsError(
            f"study {study.name}: records have no site {lacking[0]!r}; give one source for each of "
            f"{', '.join(study.sites)}"
        )
    if unknown := sorted(given - asked):
        raise SettingsError(
            f"study {study.name}: records name site {unknown[0]!r}, which the study does not; "
            f"choose among {', '.join(study.sites)}"
        )
    tests = records.test if isinstance(records.test, Mapping) else {TEST: records.test}
    return Cohorts(
        sites={site: records.sites[site] for site in study.sites},
        test=tests,
        described=records.described,
        synthetic=records.synthetic,
    )
