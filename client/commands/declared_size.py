"""``consilium-site approve``: which size this hospital declares for a study."""

from consilium.client.hospital.approvals import Approval
from consilium.client.hospital.folder import SiteFolder
from consilium.client.records.cohort import read_cohort
from consilium.client.records.declared_size import rounded_size
from consilium.shared.errors import ConsiliumError, DataError
from consilium.shared.rounds.contents import check_size


def chosen_size(folder: SiteFolder, approval: Approval, patients: int | None) -> int:
    """Return the size to declare: the one given or declared before, or the rounded real number.

    Args:
        folder: this site's.
        approval: what is about to be approved.
        patients: as given on the command line, if it was.

    Raises:
        StudyError: above the study's bound.
        DataError: none is given, and the records cannot be read.
    """
    study, site = approval.study, folder.owner()
    known = approval.sizes.get(site)
    if patients is None and known is not None:
        return known
    if patients is None:
        try:
            source = folder.settings().open_source(folder.path, study)
            cohort = read_cohort(source, study, site=site, split_key=folder.split_key())
        except ConsiliumError as error:
            raise DataError(
                f"{error}; or give the size to declare with --patients, about how many patients "
                "will train"
            ) from error
        patients = min(rounded_size(cohort.training.patients), study.aggregation.max_weight)
    check_size(study, site, patients)
    return patients
