"""``consilium-site approve``: which size this hospital declares for a study."""

from consilium.client.hospital.approvals import Approval
from consilium.client.records.cohort import Cohort
from consilium.client.records.declared_size import usual_size
from consilium.shared.rounds.contents import check_size


def chosen_size(approval: Approval, site: str, cohort: Cohort, patients: int | None) -> int:
    """Return the size to declare: the one given or declared before, or the rounded real number.

    Args:
        approval: what is about to be approved.
        site: this site's name.
        cohort: this site's patients.
        patients: as given on the command line, if it was.

    Raises:
        StudyError: above the study's bound.
    """
    study, known = approval.study, approval.sizes.get(site)
    if patients is None and known is not None:
        return known
    if patients is None:
        patients = usual_size(cohort.training.patients, study)
    check_size(study, site, patients)
    return patients
