"""Recalibrates a model's risks for one site, on its own patients who did not train the model.

The result is a model like an exported one, signed by the site itself and for use at this site only:
its weights, risk bands and thresholds reveal facts about this hospital's patients, so it must not
be passed on. Nothing leaves the site, so the privacy ledger is not charged.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from consilium.client.records.cohort import shard_of, validation_shards
from consilium.client.records.features import TimeGrid, select, to_grid, to_tensors
from consilium.client.records.windows import read_windows
from consilium.client.round.predictions import predict
from consilium.client.round.validation_sums import row_weights, stay_weights
from consilium.client.sources.common.source import Source
from consilium.shared.crypto.keys import IdentityKey
from consilium.shared.crypto.transcript import sha256
from consilium.shared.errors import DataError, SettingsError
from consilium.shared.export.manifest import ModelManifest, Recalibrated, Validation
from consilium.shared.export.signed_model import SignedModel, Trained, write_signed_model
from consilium.shared.figures.operating_range import bands, thresholds
from consilium.shared.figures.recalibration import (
    NEUTRAL,
    Recalibration,
    recalibrate_risks,
    with_recalibration,
)
from consilium.shared.figures.risk_curves import Share, observed_over_expected
from consilium.shared.figures.score_counts import count_scores, finer_edges, first_edges
from consilium.shared.files.permissions import PRIVATE_FOLDER
from consilium.shared.rounds.patient_groups import WITH_RISKS
from consilium.shared.study.definition import Study

FEWEST = 20  # patients with, and without, the outcome; with fewer, risks are left unchanged
BINS, PASSES = 200, 3
_FOLDS = 5

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class OutcomeRows:
    """Known outcomes (R,) of one output; the weights of a patient's rows sum to at most 1."""

    risks: Array
    outcomes: NDArray[np.bool_]
    weights: Array
    patients: NDArray[np.int64]

    @property
    def fewer(self) -> float:
        """Patients with or without the outcome, whichever is smaller."""
        return float(min(self.weights[self.outcomes == one].sum() for one in (True, False)))

    def ratio(self, risks: Array) -> Share | None:
        """Return observed outcomes / outcomes expected by ``risks``."""
        return observed_over_expected(
            float(self.weights[self.outcomes].sum()),
            float(self.weights.sum()),
            float((self.weights * risks).sum()),
        )


@dataclass(frozen=True, kw_only=True)
class SiteFit:
    """How well one output's risks fit a site's own patients, and the correction.

    Attributes:
        recalibration: the correction that these patients support.
        patients: number of patients; ``fewer`` is the rarer of with and without the outcome.
        before: observed / expected outcomes.
        after: the same after recalibration, cross-validated in five folds.
    """

    recalibration: Recalibration
    patients: float
    fewer: float
    before: Share | None
    after: Share | None


def fit_at_site(trained: Trained, grid: TimeGrid) -> tuple[SiteFit, ...]:
    """Return the fit of each output to patients that did not train the model."""
    return tuple(map(_fit, rows_of(trained, grid)))


def rows_of(trained: Trained, grid: TimeGrid) -> Iterator[OutcomeRows]:
    """Yield the rows of each output."""
    study = trained.study
    inputs = to_tensors(grid, trained.normalisation, study)
    scores = predict(trained.model, inputs.x_NTF, inputs.mask_NT)
    counted, weight = row_weights(inputs, stay_weights(inputs), study)
    patient = grid.patient_N.reshape(-1, *[1] * (counted.ndim - 1))
    y = grid.y_N.reshape(scores.shape)
    for output in range(study.task.outputs):
        known = counted & ~np.isnan(y[..., output])
        yield OutcomeRows(
            risks=scores[..., output][known],
            outcomes=y[..., output][known] == 1,
            weights=weight[known],
            patients=np.broadcast_to(patient, counted.shape)[known],
        )


def recalibrate_at_site(
    signed: SignedModel,
    source: Source,
    folder: Path,
    *,
    key: IdentityKey,
    split_key: bytes | None,
) -> tuple[ModelManifest, tuple[SiteFit, ...]]:
    """Write the model, recalibrated for this site, into a new folder; return manifest and fits.

    Args:
        signed: the model as received.
        source: this site's records, with their outcomes.
        folder: must not exist; it is made readable by this account only.
        key: the site's identity, which signs the result.
        split_key: identifies the patients who did not train; None if none of them did.

    Raises:
        DataError: too few patients with or without the outcome, or all of them trained.
        SettingsError: the task has no risks to recalibrate, or the folder cannot be written.
    """
    trained, study = signed.trained, signed.trained.study
    if study.task.kind not in WITH_RISKS:
        raise SettingsError(
            f"study {study.name}: a {study.task.kind} task has no risks of one outcome to "
            "recalibrate; use the model as it is"
        )
    grid = _untrained(to_grid(read_windows(source, study), study), study, split_key)
    fits = fit_at_site(trained, grid)
    most = max(fit.fewer for fit in fits)
    if most < FEWEST:
        raise DataError(
            f"of {grid.patients} patients who did not train, {most:.0f} are on the rarer side of "
            f"the outcome; to recalibrate needs {FEWEST}, give the records of more patients"
        )
    known = [fit.recalibration for fit in fits]
    model = with_recalibration(trained.model, known).eval()
    changed = replace(trained, model=model)
    whose = f"{grid.patients} patients of this site who did not train"
    changed = replace(
        changed,
        validation=_validation(changed, grid, whose),
        recalibration=Recalibrated(
            on=whose,
            slopes=tuple(one.slope for one in known),
            intercepts=tuple(one.intercept for one in known),
            made_from=sha256(signed.manifest.to_bytes()).hex(),
        ),
    )
    manifest = write_signed_model(
        folder,
        changed,
        key,
        simulated=signed.manifest.simulated,
        rounds=signed.manifest.rounds,
        epsilon=signed.manifest.epsilon,
        mode=PRIVATE_FOLDER,
    )
    return manifest, fits


def _untrained(grid: TimeGrid, study: Study, split_key: bytes | None) -> TimeGrid:
    """Return the patients of the shards that never train."""
    if split_key is None:
        return grid
    if not study.evaluation.validation_fraction:
        raise DataError(
            f"study {study.name} kept no patients out of training, and those who trained cannot "
            "say whether its risks hold; give records of other patients with --data and "
            "--untrained"
        )
    first, _ = validation_shards(study)
    apart = [n for n, one in enumerate(grid.patient_ids) if shard_of(one, split_key) >= first]
    if not apart:
        raise DataError("none of these patients was kept out of training; give more records")
    return select(grid, np.array(apart))


def _fit(rows: OutcomeRows) -> SiteFit:
    return SiteFit(
        recalibration=_chosen(rows),
        patients=float(rows.weights.sum()),
        fewer=rows.fewer,
        before=rows.ratio(rows.risks),
        after=rows.ratio(_cross_fitted(rows)),
    )


def _chosen(rows: OutcomeRows) -> Recalibration:
    if rows.fewer < FEWEST:
        return NEUTRAL
    return recalibrate_risks(rows.risks, rows.outcomes, rows.weights)


def _cross_fitted(rows: OutcomeRows) -> Array:
    """Return each row's risk, recalibrated on the patients of the other folds."""
    risks = rows.risks.copy()
    if rows.fewer < FEWEST:
        return risks
    fold = rows.patients % _FOLDS
    for number in range(_FOLDS):
        mine, others = fold == number, fold != number
        rest = OutcomeRows(
            risks=rows.risks[others],
            outcomes=rows.outcomes[others],
            weights=rows.weights[others],
            patients=rows.patients[others],
        )
        fitted = recalibrate_risks(rest.risks, rest.outcomes, rest.weights)
        risks[mine] = fitted.apply(rows.risks[mine])
    return risks


def _validation(trained: Trained, grid: TimeGrid, whose: str) -> Validation:
    """Return the recalibrated model's figures on the patients it was fitted to."""
    tables = []
    for rows in rows_of(trained, grid):
        edges_L = first_edges(BINS, trained.study.evaluation.thresholds)
        for _ in range(PASSES):
            counts_2B = count_scores(rows.risks, rows.outcomes, rows.weights, edges_L)
            edges_L = finer_edges(counts_2B, edges_L, trained.study.evaluation.thresholds)
        tables.append((count_scores(rows.risks, rows.outcomes, rows.weights, edges_L), edges_L))
    declared = trained.study.evaluation.thresholds
    return Validation(
        of=whose,
        patients=float(grid.patients),
        bands=tuple(bands(*table) for table in tables),
        thresholds=tuple(thresholds(*table, declared) for table in tables),
    )
