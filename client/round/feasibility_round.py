"""A site's part of the feasibility round: bounded, noisy numbers of persons."""

import numpy as np
from numpy.typing import NDArray

from consilium.client.records.cohort import Cohort
from consilium.client.records.person_counts import cohort_counts
from consilium.client.round.randomness import RoundRandomness
from consilium.shared.rounds.feasibility import feasibility_noise, most_persons
from consilium.shared.study.definition import Study


def feasibility_parts(
    study: Study, cohort: Cohort, size: int, randomness: RoundRandomness
) -> dict[str, NDArray[np.float64]]:
    """Return the round's one part, ``feasibility`` (cells,), with this site's own noise.

    Guarantee: noise aside, one person more or less moves each cell by at most 1, and no cell is
    above :func:`consilium.shared.rounds.feasibility.most_persons`.

    Args:
        study: sets cells and noise.
        cohort: the site's patients, those of training and validation together.
        size: the site's declared size.
        randomness: the round's random numbers.
    """
    counts = np.minimum(cohort_counts(cohort, study), most_persons(study, size))
    noise = feasibility_noise(study)
    if noise.any():
        counts += noise * randomness.stream("noise").standard_normal(noise.size)
    return {"feasibility": counts}
