"""Tells the hospital, and nobody else, when a study's cohort is not the one that it approved."""

import logging
from typing import Literal

from consilium.client.hospital.cohort_notes import CohortNote, note_seen
from consilium.client.hospital.folder import SiteFolder
from consilium.client.records.cohort import Cohort
from consilium.client.records.fingerprint import cohort_fingerprint
from consilium.client.records.person_counts import cohort_counts
from consilium.client.service.site_cohort import site_cohort
from consilium.shared.clock import utc_now
from consilium.shared.errors import PolicyError
from consilium.shared.rounds.feasibility import feasibility_cells
from consilium.shared.study.definition import Study

log = logging.getLogger(__name__)


def note_of(folder: SiteFolder, cohort: Cohort, study: Study) -> CohortNote:
    """Return what is kept of this cohort."""
    outcomes = {
        cell.name: int(persons)
        for cell, persons in zip(
            feasibility_cells(study), cohort_counts(cohort, study), strict=True
        )
        if cell.kind == "outcome"
    }
    opted_out = cohort.report.opted_out
    return CohortNote(
        at=utc_now().isoformat(timespec="seconds"),
        fingerprint=cohort_fingerprint(cohort, study, key=folder.split_key()).hex(),
        persons=sum(part.patients for part in cohort.parts),
        stays=sum(len(part.y_N) for part in cohort.parts),
        outcomes=outcomes,
        opted_out=0 if opted_out is None else opted_out[0],
    )


class WatchedCohort:
    """Reads an approved study's patients for its rounds, and compares them with those approved.

    The log says that they moved, ``status`` says how; neither is sent. With ``on_moved_cohort``
    "stop" they are not given out, and not read again until the study is approved anew.

    Args:
        folder: the site's.
        study: the approved study.
        on_moved: what the policy says.
    """

    def __init__(self, folder: SiteFolder, study: Study, on_moved: Literal["tell", "stop"]) -> None:
        self._folder, self._study, self._on_moved = folder, study, on_moved
        self._stopped: PolicyError | None = None

    def __call__(self) -> Cohort:
        """Return the patients.

        Raises:
            DataError, SettingsError: as :func:`site_cohort`.
            PolicyError: they moved, and the policy says to stop. It is raised while records are in
                use, so it leaves as the one refusal that any failure leaves as.
        """
        if self._stopped is not None:
            raise self._stopped
        cohort = site_cohort(self._folder, self._study)
        note = note_of(self._folder, cohort, self._study)
        notes = note_seen(self._folder.path / "approvals", self._study.digest, note)
        if notes.moved:
            log.warning(
                "the cohort of study %s is not the one that was approved; 'consilium-site status' "
                "says what changed",
                self._study.name,
            )
        if notes.moved and self._on_moved == "stop":
            self._stopped = PolicyError(
                f"the cohort of study {self._study.name} is not the one that was approved, and "
                "[data] on_moved_cohort is \"stop\"; see 'consilium-site status', and approve the "
                "study again"
            )
            raise self._stopped
        return cohort
