"""This site's patients for one study: read once, checked, and split into training and validation.

Every patient belongs for good to one of 100 shards, by a keyed hash of the patient's identifier
that only this site can compute. Patients in the highest shards never train, they validate; their
privacy budget is counted separately from that of the others.
"""

import hashlib
import hmac
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from consilium.client.ledger.releases import SHARDS
from consilium.client.records.features import (
    PatientTensors,
    TimeGrid,
    require_usable,
    select,
    to_grid,
    to_tensors,
)
from consilium.client.records.windows import read_windows
from consilium.client.sources.common.door import Door
from consilium.client.sources.common.opt_outs import OptOuts
from consilium.client.sources.common.source import ReadReport, Source
from consilium.shared.errors import DataError
from consilium.shared.model.normalisation import Normalisation
from consilium.shared.study.definition import Study


@dataclass(frozen=True, kw_only=True)
class Cohort:
    """A site's patients on the study's time steps, split into training and validation."""

    training: TimeGrid
    validation: TimeGrid | None
    report: ReadReport

    @property
    def parts(self) -> tuple[TimeGrid, ...]:
        """Those who train and, if there are any, those who validate; nobody is in both."""
        return (self.training,) if self.validation is None else (self.training, self.validation)

    def without(self, opted: OptOuts) -> Self:
        """Return the cohort without the persons who opted out; perhaps nobody is left."""
        training, held_out = _without(self.training, opted), None
        gone = self.training.patients - training.patients
        if self.validation is not None:
            held_out = _without(self.validation, opted)
            gone += self.validation.patients - held_out.patients
        known = self.report.opted_out
        if not gone and known is not None and known[1] == len(opted):
            return self
        before = 0 if known is None else known[0]
        return replace(
            self,
            training=training,
            validation=held_out if held_out is not None and held_out.patients else None,
            report=replace(self.report, opted_out=(before + gone, len(opted))),
        )

    def tensors(
        self, normalisation: Normalisation, study: Study
    ) -> tuple[PatientTensors, PatientTensors | None]:
        """Return the model's inputs for the training and for the validation patients."""
        held_out = self.validation
        return to_tensors(self.training, normalisation, study), (
            to_tensors(held_out, normalisation, study) if held_out is not None else None
        )


def _without(grid: TimeGrid, opted: OptOuts) -> TimeGrid:
    """Return the stays of the patients who did not opt out; the same grid if nobody did."""
    kept_P = np.flatnonzero(
        [not opted.name(one, *grid.former_ids.get(one, ())) for one in grid.patient_ids]
    )
    return grid if len(kept_P) == grid.patients else select(grid, kept_P)


def training_shards(study: Study) -> tuple[int, int]:
    """Return the shards (low, high), high excluded, whose patients train."""
    held_out = study.evaluation.validation_fraction
    if held_out == 0:
        return 0, SHARDS
    return 0, min(SHARDS - 1, max(1, round(SHARDS * (1 - held_out))))


def validation_shards(study: Study) -> tuple[int, int]:
    """Return the shards (low, high), high excluded, whose patients only validate."""
    return training_shards(study)[1], SHARDS


def shard_of(patient_id: str, split_key: bytes) -> int:
    """Return the patient's shard, 0 to 99: HMAC-SHA256 of the identifier under the site's key."""
    mac = hmac.new(split_key, patient_id.encode(), hashlib.sha256).digest()
    return (int.from_bytes(mac[:8], "big") * SHARDS) >> 64


def read_cohort(source: Source, study: Study, *, site: str, split_key: bytes) -> Cohort:
    """Read the site's patients; :func:`require_suitable` says if they can serve the study.

    Raises:
        DataError: an error in the source; the sentence names the site.
    """
    _, first_held_out = training_shards(study)
    try:
        leaves_out = isinstance(source, Door) and source.leaves_out
        grid = to_grid(read_windows(source, study), study, or_nobody=leaves_out)
        shard_P = np.array([shard_of(patient, split_key) for patient in grid.patient_ids])
        training = select(grid, np.flatnonzero(shard_P < first_held_out))
    except DataError as error:
        raise DataError(f"site {site}: {error}") from error
    held_out_P = np.flatnonzero(shard_P >= first_held_out)
    validation = select(grid, held_out_P) if held_out_P.size else None
    return Cohort(training=training, validation=validation, report=source.report)


def require_suitable(cohort: Cohort, study: Study, *, site: str, minimum_patients: int) -> None:
    """Refuse patients that are too few for the hospital, or from whom nothing can be learned.

    The hospital asks this once, before it approves the study, and the sentence is for its own
    people: in a run, whether a site takes part must not depend on its records.

    Args:
        cohort: the site's patients.
        study: the study that they are to serve.
        site: this site's name, for the sentence.
        minimum_patients: the hospital's own bound.

    Raises:
        DataError: too few patients for the study or the hospital, or a binary task where only one
            outcome occurs.
    """
    try:
        require_usable(cohort.training, study)
    except DataError as error:
        raise DataError(f"site {site}: {error}") from error
    if cohort.training.patients < minimum_patients:
        raise DataError(
            f"site {site}: {cohort.training.patients} patients of the study are below this site's "
            f"own bound of {minimum_patients}; widen the cohort or lower [federation] "
            "minimum_patients in policy.toml"
        )
