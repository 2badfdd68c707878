"""Made-up patients in the shape of any study, and the canary: a patient who is easy to detect.

No records are needed: a study fixes the shape of what a site computes on, and the guarantee must
hold for any patient. The canary's values are as far from usual as the study allows, its label is
the one that the model thinks least likely, and all of its stays are equal, so that they add up.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from consilium.client.records.cohort import Cohort
from consilium.client.records.features import TimeGrid, label_shape, to_tensors
from consilium.client.sources.common.source import Tally
from consilium.shared.model.branch import Branch
from consilium.shared.model.normalisation import Normalisation, reference_scores
from consilium.shared.model.own_weights import shared_weights
from consilium.shared.model.study_model import study_model
from consilium.shared.model.weight_vector import to_vector
from consilium.shared.study.definition import Study
from consilium.shared.study.dictionary import Variable
from consilium.shared.study.input_names import UNKNOWN_TOKEN, token_names

MANY_STAYS = 64  # a gradient that is clipped per stay is then 64 clip norms long
HEAD_FACTORS = (1.0, 4.0, 16.0, 64.0, 256.0)  # weights of the head times this lengthen a gradient
FAR = 4.0  # clip norms that the gradient of one of the canary's stays should have
MISSING = 0.4  # share of the other patients' values
FAR_LABEL = 25.0  # spreads between a regression's prediction and the canary's label


@dataclass(frozen=True, kw_only=True, eq=False)
class Exposed:
    """A canary, and weights under which it stands out.

    Attributes:
        weights_D: what the coordinator sends.
        y: the label of each of the canary's stays.
        gradient_D: gradient of one stay over the weights that are shared, by automatic
            differentiation alone.
        length: L2 norm of the gradient over all weights.
    """

    weights_D: NDArray[np.float32]
    y: NDArray[np.float32]
    gradient_D: NDArray[np.float64]
    length: float


def expose(study: Study) -> Exposed:
    """Return the canary's label, and the weights with the least factor on the head that suffices.

    ``study`` must be without dropout, so that the gradient is the one that a site computes.
    """
    start_D = to_vector(study_model(study))
    shared_D = shared_weights(study, start_D.size)
    y = np.zeros(label_shape(study), dtype=np.float32)
    found: list[Exposed] = []
    for factor in HEAD_FACTORS:
        weights_D = _with_head(study, start_D, factor)
        model = study_model(study, weights_D).train()
        x_NTF, mask_NT = _canary_inputs(study, y)
        y = _least_likely(model, x_NTF, mask_NT, study)
        gradient_D = _gradient(model, x_NTF, mask_NT, y)
        length = float(np.linalg.norm(gradient_D))
        found.append(
            Exposed(weights_D=weights_D, y=y, gradient_D=gradient_D[shared_D], length=length)
        )
        if length >= FAR * study.privacy.clip_norm:
            break
    return max(found, key=lambda each: each.length)


def loud_weights(study: Study) -> NDArray[np.float32]:
    """Return weights under which inputs move the output by more than attributions may count."""
    return _with_head(study, to_vector(study_model(study)), HEAD_FACTORS[-1])


def blank_grid(study: Study, patients: int = 4) -> TimeGrid:
    """Return patients of whom nothing was measured, and whose outcomes nobody knows.

    Their statistics and gradients are zero, so that what a site releases is its noise.
    """
    value_NTV = np.full((patients, *_steps_and_columns(study)), np.nan, dtype=np.float32)
    y_N = np.full((patients, *label_shape(study)), np.nan, dtype=np.float32)
    return _grid(value_NTV, y_N, np.arange(patients))


def usual_grid(study: Study, *, patients: int, seed: int = 0) -> TimeGrid:
    """Return patients with a stay each, of values about the study's references."""
    rng = np.random.default_rng(seed)
    shape = (patients, *_steps_and_columns(study))
    value_NTV = np.full(shape, np.nan)
    for column, variable in enumerate(study.variables.values()):
        z_NT = rng.standard_normal(shape[:2]) * variable.spread
        value_NT = variable.center + z_NT
        if variable.scale == "log":
            value_NT = variable.center * np.exp(z_NT)
        value_NTV[..., column] = np.clip(value_NT, variable.low, variable.high)
    numbers = UNKNOWN_TOKEN + 1 + (0 if study.tokens is None else len(study.tokens.vocabulary))
    columns = slice(len(study.variables), None)
    value_NTV[..., columns] = rng.integers(1, numbers, value_NTV[..., columns].shape)
    value_NTV[rng.random(shape) < MISSING] = np.nan
    labels = (patients, *label_shape(study))
    classes = study.task.outputs if study.task.kind == "multiclass" else 2
    y_N = rng.integers(0, classes, labels).astype(np.float64)
    if study.task.kind == "regression":
        y_N = study.task.center + study.task.spread * rng.standard_normal(labels)
    return _grid(value_NTV, y_N, np.arange(patients))


def canary_grid(study: Study, y: NDArray[np.float32], *, stays: int, patients: int = 1) -> TimeGrid:
    """Return ``patients`` canaries with ``stays`` equal stays each, all labelled ``y``."""
    steps, columns = _steps_and_columns(study)
    value_V = np.full(columns, float(UNKNOWN_TOKEN))
    for column, variable in enumerate(study.variables.values()):
        value_V[column] = _farthest(variable)
    rows = stays * patients
    value_NTV = np.broadcast_to(value_V, (rows, steps, columns))
    y_N = np.broadcast_to(y, (rows, *y.shape))
    return _grid(value_NTV, y_N, np.repeat(np.arange(patients), stays))


def joined(first: TimeGrid, second: TimeGrid) -> TimeGrid:
    """Return the patients of both; the second's come last."""
    patient_N = np.concatenate([first.patient_N, first.patients + second.patient_N])
    value_NTV = np.concatenate([first.value_NTV, second.value_NTV])
    return _grid(value_NTV, np.concatenate([first.y_N, second.y_N]), patient_N)


def without_stays(grid: TimeGrid, patient: int) -> TimeGrid:
    """Return the same patients, of whom one has no stays; how many there are stays the same."""
    kept_N = grid.patient_N != patient
    return TimeGrid(
        value_NTV=grid.value_NTV[kept_N],
        mask_NT=grid.mask_NT[kept_N],
        y_N=grid.y_N[kept_N],
        patient_N=grid.patient_N[kept_N],
        patient_ids=grid.patient_ids,
    )


def cohort_of(training: TimeGrid, validation: TimeGrid | None = None) -> Cohort:
    """Return these patients as a site's cohort."""
    report = Tally(patients=training.patients, stays=len(training.y_N)).report()
    return Cohort(training=training, validation=validation, report=report)


def statistics_reach(study: Study) -> float:
    """Return the L2 norm of the canary's statistics before they are clipped."""
    z_V = np.array([_score(variable, _farthest(variable)) for variable in study.variables.values()])
    return float(np.sqrt((1 + z_V**2 + z_V**4).sum()))


def _grid(
    value_NTV: NDArray[np.generic], y_N: NDArray[np.generic], patient_N: NDArray[np.int64]
) -> TimeGrid:
    return TimeGrid(
        value_NTV=value_NTV.astype(np.float32),
        mask_NT=np.ones(value_NTV.shape[:2], dtype=np.bool_),
        y_N=y_N.astype(np.float32),
        patient_N=patient_N.astype(np.int64),
        patient_ids=tuple(f"made-up-{number}" for number in range(int(patient_N.max()) + 1)),
    )


def _steps_and_columns(study: Study) -> tuple[int, int]:
    return study.data.steps, len(study.variables) + len(token_names(study))


def _farthest(variable: Variable) -> float:
    """Return the end of the variable's range that lies farther from its center."""
    return max(variable.low, variable.high, key=lambda value: abs(_score(variable, value)))


def _score(variable: Variable, value: float) -> float:
    return float(reference_scores(np.array([value], dtype=np.float32), variable)[0])


def _with_head(study: Study, start_D: NDArray[np.float32], factor: float) -> NDArray[np.float32]:
    """Return the weights with those of the maps to the outputs times ``factor``."""
    model = study_model(study, start_D)
    with torch.no_grad():
        for layer in model.output_layers:
            layer.weight.mul_(factor)
    return to_vector(model)


def _canary_inputs(study: Study, y: NDArray[np.float32]) -> tuple[torch.Tensor, torch.Tensor]:
    grid = canary_grid(study, y, stays=1)
    tensors = to_tensors(grid, Normalisation.reference(study), study)
    return tensors.x_NTF, tensors.mask_NT


def _least_likely(
    model: Branch, x_NTF: torch.Tensor, mask_NT: torch.Tensor, study: Study
) -> NDArray[np.float32]:
    """Return the label of one stay that the model finds least likely."""
    with torch.no_grad():
        scores = model.scores(model(x_NTF, mask_NT))[0].numpy()
    if study.task.kind == "multiclass":
        label = scores.argmin(axis=-1)
    elif study.task.kind == "regression":
        label = scores + FAR_LABEL * study.task.spread
    else:
        label = scores < 0.5
    return np.asarray(label, dtype=np.float32).reshape(label_shape(study))


def _gradient(
    model: Branch, x_NTF: torch.Tensor, mask_NT: torch.Tensor, y: NDArray[np.float32]
) -> NDArray[np.float64]:
    loss = model.training_loss(x_NTF, mask_NT, torch.from_numpy(y)[None]).sum()
    parts = torch.autograd.grad(loss, list(model.parameters()))
    gradient_D: NDArray[np.float64] = torch.cat([p.flatten() for p in parts]).double().numpy()
    return gradient_D
