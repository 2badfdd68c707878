"""Two cohorts that differ by one patient, and what a hostile coordinator may ask of them.

The patient is the last one, so that a sample drawn with the same random numbers picks the same
others.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from consilium.client.records.cohort import Cohort
from consilium.client.records.features import TimeGrid, label_shape
from consilium.shared.model.class_shares import LEAST_SHARE, class_sums
from consilium.shared.model.normalisation import CLIP, Normalisation
from consilium.shared.study.definition import Study, parse_study, with_changes
from consilium.simulations.experiments.canary import cohort_of

STEPS, OTHERS, MANY_STAYS = 4, 6, 60

BASE = parse_study("""
schema = 2
name = "hostile"
title = "Hostile"
rounds = 3
sites = ["a", "b", "c"]
[data]
source = "tables"
label = "death"
window_h = 4
minimum_patients = 2
[model]
hidden = 4
[training]
local_steps = 1
sampling_rate = 1.0
[privacy]
mode = "distributed"
epsilon = 0.5
[evaluation]
validation_fraction = 0.4
subgroups.age = { cuts = [50.0, 70.0] }
[variables]
hr = { unit = "/min", low = 10, high = 300, center = 85, spread = 18 }
age = { unit = "a", low = 15, high = 120, center = 65, spread = 15, role = "static" }
""")
SITE = {"privacy": {"mode": "site"}}
STUDIES: dict[str, Study] = {
    "distributed": with_changes(BASE, evaluation={"explained_patients": 100}),
    "site": with_changes(BASE, **SITE, training={"optimizer": "sgd"}),
    "own head": with_changes(BASE, **SITE, personalisation={"parts": ["head"]}),
    "own inputs": with_changes(BASE, personalisation={"parts": ["inputs"]}),
    "ditto": with_changes(BASE, personalisation={"ditto": {"pull": 0.1}}),
    "scaffold": with_changes(BASE, **SITE, training={"control_variates": True, "local_steps": 2}),
    "linear path": with_changes(BASE, model={"skip": True}),
    "outcomes of steps": with_changes(BASE, **SITE, task={"per_step": True}),
    "per step": with_changes(
        BASE,
        task={"kind": "regression", "per_step": True, "spread": 1.0},
    ),
}
"""One study for each way of training and each mode of privacy."""

TASKS: dict[str, Study] = {
    "counted classes": with_changes(
        BASE,
        task={"kind": "multiclass", "outputs": 2, "loss": {"kind": "focal", "balance": 1.0}},
    ),
    "survival": with_changes(
        BASE,
        task={"kind": "survival", "outputs": 3, "cuts": [1.0, 2.0, 4.0]},
        privacy={"calibration_rounds": 1},
    ),
    "counted labels": with_changes(
        BASE,
        task={
            "kind": "multilabel",
            "outputs": 2,
            "per_step": True,
            "loss": {"kind": "bounded", "balance": 0.5},
        },
    ),
}
"""Other tasks and losses, trained as the first of ``STUDIES``."""

PATIENTS = ("ordinary", "sixty stays", "not a number", "huge", "all missing", "unknown label")


@dataclass(frozen=True)
class Pair:
    """The cohort with the patient and the one without, each in training and in validation."""

    present: Cohort
    absent: Cohort


def pair(study: Study, kind: str) -> Pair:
    """Return two cohorts that differ by one patient of this kind, who trains and is validated."""
    training, held_out = _grid(study, kind, seed=1), _grid(study, kind, seed=2)
    return Pair(cohort_of(training, held_out), cohort_of(_less(training), _less(held_out)))


def _grid(study: Study, kind: str, *, seed: int) -> TimeGrid:
    """Return half a dozen ordinary patients with a stay each, and behind them the special one."""
    rng = np.random.default_rng(seed)
    stays = MANY_STAYS if kind == "sixty stays" else 1
    rows = OTHERS + stays
    value_NTV = rng.normal([85, 65], [18, 15], size=(rows, STEPS, 2)).astype(np.float32)
    per_step = study.task.per_step
    y_N = rng.integers(0, 2, size=(rows, *label_shape(study))).astype(np.float32)
    mask_NT = np.arange(STEPS) < rng.integers(1, STEPS + 1, size=(rows, 1))
    special = slice(OTHERS, rows)
    if kind == "sixty stays":  # opposite outcomes, nearly the same values: gradients cancel
        value_NTV[special] = value_NTV[OTHERS]
        y_N[special] = (np.arange(stays) % 2).reshape(-1, *[1] * (y_N.ndim - 1))
        mask_NT[special] = True
    elif kind == "not a number":
        value_NTV[special, ::2] = np.nan
    elif kind == "huge":
        value_NTV[special] = [1e30, -1e30]
        if per_step:
            observed = mask_NT[special].reshape(1, STEPS, *[1] * (y_N.ndim - 2))
            y_N[special] = np.where(observed, 0.0, 1e20)
    elif kind == "all missing":
        value_NTV[special] = np.nan
    elif kind == "unknown label" and (per_step or study.task.kind in ("multilabel", "survival")):
        y_N[special] = np.nan
    return TimeGrid(
        value_NTV=value_NTV,
        mask_NT=mask_NT,
        y_N=y_N,
        patient_N=np.concatenate([np.arange(OTHERS), np.full(stays, OTHERS)]),
        patient_ids=tuple(f"p{number}" for number in range(OTHERS + 1)),
    )


def _less(grid: TimeGrid) -> TimeGrid:
    kept = grid.patient_N < OTHERS
    return TimeGrid(
        value_NTV=grid.value_NTV[kept],
        mask_NT=grid.mask_NT[kept],
        y_N=grid.y_N[kept],
        patient_N=grid.patient_N[kept],
        patient_ids=grid.patient_ids[:OTHERS],
    )


def hostile_weights(parameters: int, number: int) -> NDArray[np.float32]:
    """Return finite weights (D,), from ordinary ones to the ends of float32."""
    rng = np.random.default_rng(number)
    size = (0.3, 1e4, 1e14, 1e30, 3e38)[number % 5]
    drawn = rng.normal(size=parameters) if number % 2 else rng.choice([-1.0, 0.0, 1.0], parameters)
    return np.clip(drawn * size, -3.4e38, 3.4e38).astype(np.float32)


def hostile_normalisation(study: Study, number: int) -> bytes:
    """Return the ends of what a site accepts."""
    variables = len(study.variables)
    classes = study.task.outputs if class_sums(study) else 0
    return Normalisation(
        mean_V=np.full(variables, (0.0, CLIP, -CLIP)[number % 3]),
        deviation_V=np.full(variables, (1.0, 0.2, 5.0)[number % 3]),
        share_K=np.full(classes, (LEAST_SHARE, 0.5, 1.0)[number % 3]),
    ).to_bytes()
