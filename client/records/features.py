"""Features: from the events of stays to the tensors a recurrent network reads.

There are two phases, so that records are read only once. :func:`to_grid` puts every stay on the
study's time steps; the federation's normalisation is computed from grids; :func:`to_tensors` then
makes the model's inputs (:func:`consilium.shared.study.input_names.feature_names` names them).

In a grid the columns of codes follow the variables. ``y_N`` is (N,), (N, K) for several labels,
(N, T) or (N, T, K) per step.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from consilium.client.sources.common.source import Patient, Stay
from consilium.shared.errors import DataError
from consilium.shared.model.normalisation import CLIP, Normalisation, reference_scores
from consilium.shared.study.definition import Study
from consilium.shared.study.input_names import feature_names, token_names

if TYPE_CHECKING:
    import torch

RECENCY_H = 12.0  # hours in which the recency of a measurement falls from 1 to 1/e
COUNT_SCALE = 6.0  # divides log counts: large inputs use up the clipped gradient for little gain
USUAL_DISTANCE = 0.8  # mean of |z| for a standard normal z: sqrt(2 / pi), rounded
_STAYS_AT_ONCE = 512  # bounds the working memory of both phases


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class TimeGrid:
    """Stays on the study's time steps, still in the study's units.

    Attributes:
        value_NTV: float32, last value measured in each step, or number of a code; NaN if none.
        mask_NT: bool, steps during which the stay was observed.
        y_N: float32 labels.
        patient_N: int64, index of each stay's patient, ascending from 0.
        patient_ids: the site's own identifiers by patient index; they never leave the site.
        former_ids: identifiers from before records were merged, by ``patient_ids`` of those few
            who have some.
    """

    value_NTV: NDArray[np.float32]
    mask_NT: NDArray[np.bool_]
    y_N: NDArray[np.float32]
    patient_N: NDArray[np.int64]
    patient_ids: tuple[str, ...]
    former_ids: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def patients(self) -> int:
        """Number of patients P."""
        return len(self.patient_ids)

    def __repr__(self) -> str:
        return f"Grid({len(self.y_N)} stays of {self.patients} patients)"


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class PatientTensors:
    """A cohort as the model reads it; the suffixes of the names give the shapes."""

    x_NTF: "torch.Tensor"
    mask_NT: "torch.Tensor"
    y_N: "torch.Tensor"
    patient_N: "torch.Tensor"
    patients: int

    def __repr__(self) -> str:
        return f"PatientTensors({len(self.y_N)} stays of {self.patients} patients)"


def to_grid(patients: Iterable[Patient], study: Study, *, or_nobody: bool = False) -> TimeGrid:
    """Put every stay on the study's steps: the last value of each variable in each step.

    An event at the very end of the window belongs to the last step.

    Args:
        patients: with their stays.
        study: gives steps and variables.
        or_nobody: whether there may be no patient at all, as when all have opted out.

    Raises:
        DataError: there is no patient, or a label does not have the task's shape.
    """
    steps, variables = study.data.steps, len(study.variables) + len(token_names(study))
    value_NTV = np.empty((0, steps, variables), dtype=np.float32)
    masks: list[NDArray[np.bool_]] = []
    labels: list[NDArray[np.float32]] = []
    patient_of: list[int] = []
    patient_ids: list[str] = []
    former_ids: dict[str, tuple[str, ...]] = {}
    stream = iter(patients)
    while chunk := list(islice(stream, _STAYS_AT_ONCE)):
        stays = [stay for patient in chunk for stay in patient.stays]
        for patient in chunk:
            patient_of.extend([len(patient_ids)] * len(patient.stays))
            patient_ids.append(patient.patient_id)
            if patient.former_ids:
                former_ids[patient.patient_id] = patient.former_ids
        done = len(value_NTV)
        # It grows where it lies: as a list of parts that are joined, it would be there twice.
        value_NTV.resize((done + len(stays), steps, variables), refcheck=False)
        _place(stays, study, value_NTV[done:])
        masks.append(_observed_steps(stays, study, steps))
        labels.append(_labels(stays, study))
    if not patient_of and or_nobody:
        return _nobody(study, steps, variables)
    if not patient_of:
        raise DataError(
            f"no patient fits study {study.name}; check the data folder and the cohort's selection"
        )
    return TimeGrid(
        value_NTV=value_NTV,
        mask_NT=np.concatenate(masks),
        y_N=np.concatenate(labels),
        patient_N=np.array(patient_of, dtype=np.int64),
        patient_ids=tuple(patient_ids),
        former_ids=former_ids,
    )


def _nobody(study: Study, steps: int, variables: int) -> TimeGrid:
    return TimeGrid(
        value_NTV=np.empty((0, steps, variables), dtype=np.float32),
        mask_NT=np.empty((0, steps), dtype=np.bool_),
        y_N=np.empty((0, *label_shape(study)), dtype=np.float32),
        patient_N=np.empty(0, dtype=np.int64),
        patient_ids=(),
    )


def _place(stays: list[Stay], study: Study, value_NTV: NDArray[np.float32]) -> None:
    """Fill (stays, T, V); events are written in time order, so the last of a step remains."""
    value_NTV.fill(np.nan)
    if stays:
        stay_E = np.repeat(np.arange(len(stays)), [len(stay.hours_E) for stay in stays])
        hours_E = np.concatenate([stay.hours_E for stay in stays])
        variable_E = np.concatenate([stay.variable_E for stay in stays])
        last = value_NTV.shape[1] - 1
        step_E = np.minimum((hours_E / study.data.step_h).astype(np.int64), last)
        value_NTV[stay_E, step_E, variable_E] = np.concatenate([stay.value_E for stay in stays])


def _observed_steps(stays: list[Stay], study: Study, steps: int) -> NDArray[np.bool_]:
    ends = [study.data.window_h if stay.end_h is None else stay.end_h for stay in stays]
    length_N = np.clip(np.ceil(np.array(ends) / study.data.step_h), 1, steps)
    return np.asarray(np.arange(steps)[None, :] < length_N[:, None])


def label_shape(study: Study) -> tuple[int, ...]:
    """Return the shape of a stay's label: (), (K,), (T,) or (T, K)."""
    task = study.task
    several = task.kind in ("multilabel", "survival") or (
        task.kind == "regression" and task.outputs > 1
    )
    return ((study.data.steps,) if task.per_step else ()) + ((task.outputs,) if several else ())


def _labels(stays: list[Stay], study: Study) -> NDArray[np.float32]:
    expected = label_shape(study)
    for stay in stays:
        if np.shape(stay.label) != expected:
            raise DataError(
                f"a stay's label has shape {np.shape(stay.label)}, but the task "
                f"{study.task.kind} of study {study.name} needs {expected}; check the source's "
                "label"
            )
    labels = np.array([stay.label for stay in stays], dtype=np.float32)
    return labels.reshape(len(stays), *expected)


def select(grid: TimeGrid, patients: NDArray[np.int64]) -> TimeGrid:
    """Return the stays of some patients, renumbered from 0 in ascending order of old index.

    Args:
        grid: any grid.
        patients: indices into ``grid.patient_ids``; duplicates count once.
    """
    kept = np.unique(np.asarray(patients, dtype=np.int64))
    new_of = np.full(grid.patients, -1, dtype=np.int64)
    new_of[kept] = np.arange(len(kept))
    stays = np.flatnonzero(new_of[grid.patient_N] >= 0)
    return TimeGrid(
        value_NTV=grid.value_NTV[stays],
        mask_NT=grid.mask_NT[stays],
        y_N=grid.y_N[stays],
        patient_N=new_of[grid.patient_N[stays]],
        patient_ids=tuple(grid.patient_ids[index] for index in kept),
        former_ids=grid.former_ids,
    )


def require_usable(grid: TimeGrid, study: Study) -> None:
    """Refuse a cohort that is too small, or from whose labels nothing can be learned.

    Raises:
        DataError: fewer patients than ``[data] minimum_patients``, or a binary task with labels
            of one kind only.
    """
    least = study.data.minimum_patients
    if grid.patients < least:
        raise DataError(
            f"{grid.patients} patients are below minimum_patients {least}; "
            "bring more patients or lower [data] minimum_patients"
        )
    if study.task.kind == "binary":
        known = grid.y_N[~np.isnan(grid.y_N)]
        for value, word in ((1.0, "positive"), (0.0, "negative")):
            if not (known == value).any():
                raise DataError(
                    f"no patient has a {word} label {study.data.label!r}, so nothing can be "
                    "learned here; check the label or leave this site out"
                )


def to_tensors(grid: TimeGrid, normalisation: Normalisation, study: Study) -> PatientTensors:
    """Make the model's inputs: values carried forward, whether and how recently measured.

    Per series variable, all 0 before the first measurement:

    1. the last known value, normalised (0 is the federation's mean);
    2. 1 in a step with a measurement, else 0;
    3. exp(-h / RECENCY_H), h hours after the last measurement;
    4. the last value's distance |z| from the mean, less USUAL_DISTANCE;
    5. the mean of the values so far;
    6. log(1 + number of steps with a measurement so far) / COUNT_SCALE.

    Where time is counted in positions, not hours, only the first two exist. Per static variable:
    its first value, from the step in which it is known; 1 from that step on. Per column of codes:
    the code's number, 0 in a step without a code. Padded steps are all zero.

    Guarantee: every input is finite; all but codes lie within +-CLIP; no step depends on later
    ones.
    """
    import torch  # seconds, which commands that only count persons do without

    features = len(feature_names(study))
    stays, steps, _ = grid.value_NTV.shape
    x_NTF = np.empty((stays, steps, features), dtype=np.float32)
    for start in range(0, stays, _STAYS_AT_ONCE):
        part = slice(start, start + _STAYS_AT_ONCE)
        x_NTF[part] = _inputs(grid.value_NTV[part], normalisation, study)
    x_NTF[~grid.mask_NT] = 0
    return PatientTensors(
        x_NTF=torch.from_numpy(x_NTF),
        mask_NT=torch.from_numpy(grid.mask_NT),
        y_N=torch.from_numpy(grid.y_N),
        patient_N=torch.from_numpy(grid.patient_N),
        patients=grid.patients,
    )


def normalised(
    value_NTV: NDArray[np.float32], normalisation: Normalisation, study: Study
) -> NDArray[np.float32]:
    """Return normalised values of about mean 0 and deviation 1, within +-CLIP; NaN stays NaN."""
    z_NTV = np.empty((*value_NTV.shape[:2], len(study.variables)), dtype=np.float32)
    for index, variable in enumerate(study.variables.values()):
        z_NTV[..., index] = reference_scores(value_NTV[..., index], variable)
    z_NTV -= normalisation.mean_V.astype(np.float32)
    z_NTV /= normalisation.deviation_V.astype(np.float32)
    return np.clip(z_NTV, -CLIP, CLIP, out=z_NTV)


def _inputs(
    value_NTV: NDArray[np.float32], normalisation: Normalisation, study: Study
) -> NDArray[np.float32]:
    z_NTV = normalised(value_NTV, normalisation, study)
    roles = [variable.role for variable in study.variables.values()]
    series = np.flatnonzero(np.array(roles) == "series")
    static = np.flatnonzero(np.array(roles) == "static")
    first, known = _first_known(z_NTV[:, :, static])
    channels = _channels(z_NTV[:, :, series], study.data.step_h)
    if study.data.clock == "position":
        channels = channels[:2]
    codes = np.nan_to_num(value_NTV[:, :, len(study.variables) :])
    return np.concatenate([*channels, first, known, codes], axis=2, dtype=np.float32)


def _channels(z_NTV: NDArray[np.float32], step_h: int) -> tuple[NDArray[Any], ...]:
    """Return the six channels of the series variables, each (N, T, V), in the order of names."""
    measured = ~np.isnan(z_NTV)
    z_NTV = np.where(measured, z_NTV, np.float32(0))
    step_T = np.arange(z_NTV.shape[1], dtype=np.int32)[None, :, None]
    last = np.maximum.accumulate(np.where(measured, step_T, np.int32(-1)), axis=1)
    never = last < 0
    value = np.take_along_axis(z_NTV, np.maximum(last, 0), axis=1)
    value[never] = 0
    age_h = (step_T - last).astype(np.float32) * np.float32(step_h)
    recency = np.where(never, np.float32(0), np.exp(-age_h / np.float32(RECENCY_H)))
    deviance = np.where(never, np.float32(0), np.abs(value) - np.float32(USUAL_DISTANCE))
    count = np.cumsum(measured, axis=1, dtype=np.float32)
    mean = np.cumsum(z_NTV, axis=1, dtype=np.float32) / np.maximum(count, 1)
    return value, measured, recency, deviance, mean, np.log1p(count) / np.float32(COUNT_SCALE)


def _first_known(z_NTV: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return each static variable's first value from the step it is known, 0 before; if known."""
    measured = ~np.isnan(z_NTV)
    known = np.logical_or.accumulate(measured, axis=1)
    at = np.argmax(measured, axis=1)[:, None, :]
    first = np.take_along_axis(np.nan_to_num(z_NTV), at, axis=1)
    return np.where(known, first, 0), known
