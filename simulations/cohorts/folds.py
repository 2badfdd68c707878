"""Folds of the training patients: on whom a setting is judged while it is chosen.

Guarantee: each training patient is judged on in one fold, with all records, and trains in the
others; the sources of test patients are never read.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from consilium.client.sources.common.source import Patient, ReadReport, Source
from consilium.shared.errors import SettingsError
from consilium.shared.study.definition import Study, with_changes
from consilium.shared.study.rounds import MINIMUM_SITES
from consilium.simulations.cohorts.cohorts import Cohorts
from consilium.simulations.cohorts.dealing import DealtSource
from consilium.simulations.cohorts.partitions import place_of
from consilium.simulations.cohorts.study_sites import with_sites

FEWEST = 2


class Part:
    """Some patients of a source; a source like any other."""

    def __init__(self, source: Source, patients: Sequence[Patient]) -> None:
        self._source, self.patients = source, tuple(patients)

    @property
    def name(self) -> str:
        """The name of the source that they come from."""
        return self._source.name

    @property
    def report(self) -> ReadReport:
        """Counts of the whole source, but for ``patients``."""
        return replace(self._source.report, patients=len(self.patients))

    def read_patients(self, study: Study) -> Iterator[Patient]:
        """Yield the patients; ``study`` must read records as that of the folds did."""
        del study
        yield from self.patients


@dataclass(frozen=True, kw_only=True, eq=False)
class Fold:
    """Who trains, and who is judged on.

    Attributes:
        study: of the sites that train; a smaller cohort is enough for it.
        training: the source of each site that trains.
        judged: sources of those judged on, by site.
    """

    study: Study
    training: Mapping[str, Source]
    judged: Mapping[str, Source]


def folds_by_person(study: Study, cohorts: Cohorts, *, folds: int, seed: int) -> list[Fold]:
    """Deal each site's training patients to folds of equal size, outcomes as evenly as they come.

    Args:
        study: what is run.
        cohorts: of which only the sites' sources are read.
        folds: how many, 2 or more.
        seed: of the hash that deals them out.

    Raises:
        SettingsError: fewer than two folds, or a site has fewer patients than would leave one to
            train on.
        DataError: the records cannot be read.
    """
    _at_least(folds)
    held = _training_patients(study, cohorts)
    dealt: dict[str, list[list[Patient]]] = {}
    for site, part in held.items():
        if len(part.patients) < FEWEST:
            raise SettingsError(
                f"site {site} has {len(part.patients)} training patient, and folds leave one out "
                "and train on the others; choose fewer sites, or folds by site"
            )
        order = sorted(
            part.patients,
            key=lambda one: (
                _outcome(one, study),
                place_of(one.patient_id, "fold", f"{seed} {site}"),
            ),
        )
        dealt[site] = [order[number::folds] for number in range(folds)]
    smaller = _of_part(study, 1 - 1 / min(folds, *(len(part.patients) for part in held.values())))
    return [
        Fold(
            study=smaller,
            training={
                site: Part(
                    held[site],
                    [one for n, part in enumerate(parts) if n != number for one in part],
                )
                for site, parts in dealt.items()
            },
            judged={site: Part(held[site], parts[number]) for site, parts in dealt.items()},
        )
        for number in range(folds)
    ]


def folds_by_site(study: Study, cohorts: Cohorts, *, folds: int, seed: int) -> list[Fold]:
    """Deal whole sites to folds: each is judged on by a model that never saw it.

    Sites with records of one owner go together.

    Raises:
        SettingsError: fewer than two folds, more than owners of records, or so few that too few
            sites are left for a secure sum.
        DataError: the records cannot be read.
    """
    _at_least(folds)
    owners = list(cohorts.alone)
    if folds > len(owners):
        raise SettingsError(
            f"folds {folds}: more than the {len(owners)} that own records; give fewer folds"
        )
    held = _training_patients(study, cohorts)
    order = [owners[k] for k in np.random.default_rng(seed).permutation(len(owners))]
    found = []
    for number in range(folds):
        out = [site for owner in order[number::folds] for site in cohorts.alone[owner]]
        rest = [site for site in study.sites if site not in out]
        if len(rest) < MINIMUM_SITES:
            raise SettingsError(
                f"folds {folds}: without {', '.join(out)} {len(rest)} sites are left, and a secure "
                f"sum needs {MINIMUM_SITES}; give more folds, or folds by person"
            )
        found.append(
            Fold(
                study=with_sites(study, rest),
                training={site: held[site] for site in rest},
                judged={site: held[site] for site in out},
            )
        )
    return found


def _at_least(folds: int) -> None:
    if folds < FEWEST:
        raise SettingsError(f"folds {folds}: must be at least {FEWEST}; 3 is usual")


def _training_patients(study: Study, cohorts: Cohorts) -> dict[str, Part]:
    """Read the sites' patients, and nobody of the test."""
    sources: Mapping[str, Source] = cohorts.sites
    if cohorts.dealing is not None:
        dealing = cohorts.dealing.without_tests()
        sources = {site: DealtSource(dealing, site, test=False) for site in cohorts.sites}
    return {site: Part(sources[site], list(sources[site].read_patients(study)))
            for site in study.sites}  # fmt: skip  # reads as one


def _outcome(patient: Patient, study: Study) -> float:
    """Return the greatest label of a patient's stays; in regression the same for everybody."""
    if study.task.kind == "regression":
        return 0.0
    labels = np.concatenate([np.ravel(stay.label) for stay in patient.stays])
    return float(np.nanmax(labels)) if np.isfinite(labels).any() else 0.0


def _of_part(study: Study, part: float) -> Study:
    """Return the study, content with this part of the patients that it asks for at a site."""
    least = max(1, int(study.data.minimum_patients * part))
    return with_changes(study, data={"minimum_patients": least})
