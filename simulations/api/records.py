"""The records a study is run on: synthetic ones, a public collection, or the caller's sources."""

from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from types import MappingProxyType

from consilium.client.sources.common.source import Source
from consilium.shared.errors import SettingsError
from consilium.shared.study.definition import Study
from consilium.simulations.cohorts.cohorts import Cohorts
from consilium.simulations.cohorts.real_cohorts import REAL
from consilium.simulations.cohorts.study_cohorts import SYNTHETIC, cohorts_for

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


RecordsGiven = Records | str | PathLike[str] | None
"""What may be given as records: nothing, the folder of a public collection, or sources."""


def cohorts_of(study: Study, records: RecordsGiven) -> Cohorts:
    """Return the cohorts that a study is run on.

    Args:
        study: names the sites and the kind of records.
        records: None for a study with synthetic patients; the folder of its public collection; or
            the caller's own sources.

    Raises:
        SettingsError: records were not given, do not exist, were given though the study's patients
            are synthetic, or are of other sites than the study's.
        StudyError: no simulation supports the study's source of records, or one of its sites.
    """
    if isinstance(records, Records):
        return _given(study, records)
    if records is not None and not isinstance(records, str | PathLike):
        raise SettingsError(
            f"records: {type(records).__name__} is neither a folder nor consilium.Records; give "
            "one of these"
        )
    kind, folder = study.data.source, None if records is None else Path(records)
    if kind in SYNTHETIC and folder is not None:
        raise SettingsError(
            f"study {study.name}: its patients are synthetic, so records have no use; leave them "
            "out"
        )
    if kind in REAL and (folder is None or not folder.exists()):
        where = "no records were given" if folder is None else f"records {folder} do not exist"
        raise SettingsError(
            f"study {study.name}: {where}; give the folder that holds {REAL[kind].files}"
        )
    if kind not in (*SYNTHETIC, *REAL):
        raise SettingsError(
            f"study {study.name}: there is no public collection {kind!r}; give sources of your "
            "own as consilium.Records"
        )
    return cohorts_for(study, folder)


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
