"""This hospital's patients for a study, read from the records that its settings name."""

from consilium.client.hospital.folder import SiteFolder
from consilium.client.records.cohort import Cohort, read_cohort, require_suitable
from consilium.shared.study.definition import Study


def site_cohort(folder: SiteFolder, study: Study, *, counts_units: bool = True) -> Cohort:
    """Read the patients, and decide nothing.

    Args:
        folder: the site's.
        study: the study.
        counts_units: whether rows in units that are not understood are left out and counted. In a
            run they are: a single row must not decide whether a site takes part.

    Raises:
        DataError: the records cannot be read.
        SettingsError: the settings do not say where the records are, or the site is not enrolled.
    """
    source = folder.settings().open_source(folder.path, study, counts_units=counts_units)
    split_key = folder.split_key()
    return read_cohort(source, study, site=folder.enrolment().site, split_key=split_key)


def suitable_cohort(folder: SiteFolder, study: Study) -> Cohort:
    """Read the patients as :func:`site_cohort` does, and refuse those that cannot serve the study.

    For the hospital's own people, before the study is approved.

    Raises:
        DataError: also too few patients, one outcome only, or units that are not understood.
        SettingsError: as :func:`site_cohort`.
    """
    cohort = site_cohort(folder, study, counts_units=False)
    least = folder.policy().minimum_patients
    require_suitable(cohort, study, site=folder.enrolment().site, minimum_patients=least)
    return cohort
