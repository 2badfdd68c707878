"""What models without recurrence read: summaries of each variable, and counts of codes.

For whole stays these are the summaries of all measurements; for steps, those of the measurements so
far, beside the inputs that the recurrent network reads at that step.
"""

import numpy as np
from numpy.typing import NDArray

from consilium.client.records.features import TimeGrid, to_tensors
from consilium.shared.model.normalisation import Normalisation, reference_scores
from consilium.shared.study.definition import Study
from consilium.shared.study.input_names import UNKNOWN_TOKEN, token_names, token_numbers

MOST_FLAT = 256  # values of a sequence (positions times variables), up to which it is read whole


def stay_features(grid: TimeGrid, study: Study) -> NDArray[np.float64]:
    """Return each stay's summaries of its variables and counts of its codes (N, F).

    A short sequence whose steps are positions is also read value by value: position 30 of a heart
    beat always means the same.
    """
    parts = [summary_features(grid, study)]
    steps, variables = grid.value_NTV.shape[1], len(study.variables)
    if study.data.clock == "position" and steps * variables <= MOST_FLAT and study.tokens is None:
        parts.append(grid.value_NTV[:, :, :variables].reshape(len(grid.y_N), -1).astype(np.float64))
    if study.tokens is not None:
        parts.append(code_counts(grid, study))
    return np.concatenate(parts, axis=1)


def step_features(
    grid: TimeGrid,
    normalisation: Normalisation,
    study: Study,
    stay_R: NDArray[np.int64],
    step_R: NDArray[np.int64],
) -> NDArray[np.float32]:
    """Return what is known at some steps of some stays (R, F): inputs, summaries, counts so far.

    Args:
        grid: the stays.
        normalisation: of the network's inputs.
        study: gives variables and codes.
        stay_R: index of each row's stay.
        step_R: index of each row's step.
    """
    codes = len(token_names(study))
    x_NTF = to_tensors(grid, normalisation, study).x_NTF.numpy()
    parts = [x_NTF[stay_R, step_R, : x_NTF.shape[2] - codes]]
    for index, variable in enumerate(study.variables.values()):
        z_NT = reference_scores(grid.value_NTV[:, :, index], variable).astype(np.float64)
        if variable.role == "series":
            parts.append(_so_far(z_NT)[stay_R, step_R].astype(np.float32))
    if codes:
        parts.append(codes_so_far(grid, study)[stay_R, step_R])
    return np.concatenate(parts, axis=1)


def code_counts(grid: TimeGrid, study: Study) -> NDArray[np.float64]:
    """Return log(1 + count) of each code in each stay, and of all unknown codes (N, codes)."""
    return codes_so_far(grid, study)[:, -1].astype(np.float64)


def codes_so_far(grid: TimeGrid, study: Study) -> NDArray[np.float32]:
    """Return log(1 + count so far) of each code at each step, unknown ones too (N, T, codes)."""
    lines = len(token_numbers(study)) + UNKNOWN_TOKEN
    number_NTM = grid.value_NTV[:, :, -len(token_names(study)) :]
    counts = np.zeros((*number_NTM.shape[:2], lines), dtype=np.float32)
    stay_E, step_E, column_E = np.nonzero(~np.isnan(number_NTM))
    line_E = number_NTM[stay_E, step_E, column_E].astype(np.int64) - UNKNOWN_TOKEN
    np.add.at(counts, (stay_E, step_E, line_E), 1)
    return np.log1p(np.cumsum(counts, axis=1, out=counts))


def summary_features(grid: TimeGrid, study: Study) -> NDArray[np.float64]:
    """Return mean, least, greatest and last reference score, and count, by stay and variable.

    Returns:
        (N, F) float64, NaN where a variable was never measured (its count is 0).
    """
    columns = []
    for index, variable in enumerate(study.variables.values()):
        z_NT = reference_scores(grid.value_NTV[:, :, index], variable).astype(np.float64)
        columns.append(_so_far(z_NT)[:, -1])
    return np.concatenate(columns, axis=1)


def _so_far(z_NT: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return mean, least, greatest, last and number of a variable's scores up to each step.

    Returns:
        An array (N, T, 5), NaN before the first measurement (the number is 0).
    """
    known_NT = ~np.isnan(z_NT)
    count_NT = known_NT.cumsum(axis=1)
    last_NT = np.maximum.accumulate(np.where(known_NT, np.arange(z_NT.shape[1]), 0), axis=1)
    summaries = (
        np.where(known_NT, z_NT, 0).cumsum(axis=1) / np.maximum(count_NT, 1),
        np.minimum.accumulate(np.where(known_NT, z_NT, np.inf), axis=1),
        np.maximum.accumulate(np.where(known_NT, z_NT, -np.inf), axis=1),
        np.take_along_axis(z_NT, last_NT, axis=1),
    )
    never_NT = count_NT == 0
    return np.stack([*(np.where(never_NT, np.nan, one) for one in summaries), count_NT], axis=-1)
