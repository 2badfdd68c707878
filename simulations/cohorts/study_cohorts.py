"""The cohorts of a study: synthetic, or of real records."""

from pathlib import Path

from consilium.shared.errors import SettingsError
from consilium.shared.study.definition import Study
from consilium.simulations.cohorts import hospitals
from consilium.simulations.cohorts.cohorts import Cohorts
from consilium.simulations.cohorts.records_plan import Choice, Simulated, simulated_collection
from consilium.simulations.cohorts.study_records import collection_of

SYNTHETIC = (hospitals.SOURCE_NAME, hospitals.FLAWED_NAME)


def cohorts_for(
    study: Study, data: Path | None, beside: Path | None = None, *, by_site: bool = False
) -> Cohorts:
    """Return the cohorts of a study that has settings of records of its own, or needs none.

    Args:
        study: names the source and the sites.
        data: the folder of real records; None for a synthetic source.
        beside: the study's file; settings of records are looked for beside it.
        by_site: whether test persons are told apart, even if their sites are made up.

    Raises:
        SettingsError: the folder is missing, or given though the study's patients are synthetic;
            or the records have no such site.
    """
    if study.data.source not in SYNTHETIC:
        collection = collection_of(study, data, beside)
        changed, cohorts = simulated_collection(study, collection, Choice(by_site=by_site))
        if changed != study:
            raise SettingsError(
                f"study {study.name}: the records have no site {study.sites[0]!r}; choose sites "
                f"from {', '.join(changed.sites[:12])}"
            )
        return cohorts
    if data is not None:
        raise SettingsError(
            f"study {study.name}: its patients are synthetic, so --data has no use; leave it out"
        )
    return synthetic(study)[1]


def synthetic(study: Study) -> Simulated:
    """Return a study and its synthetic patients."""
    return study, Cohorts(
        sites=hospitals.synthetic_sites(study),
        test=hospitals.synthetic_tests(study),
        synthetic=True,
        described="new synthetic patients of all hospitals",
    )
