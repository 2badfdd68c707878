"""A site's part of the statistics round: bounded, noisy sums for normalising the inputs."""

import numpy as np
from numpy.typing import NDArray

from consilium.client.records.features import TimeGrid
from consilium.client.records.statistics import patient_contributions, statistics_release
from consilium.client.round.own_part import STATISTICS, OwnPartOfRun
from consilium.client.round.randomness import RoundRandomness
from consilium.shared.rounds.contents import statistics_noise
from consilium.shared.study.definition import Study


def statistics_parts(
    study: Study, training: TimeGrid, size: int, own: OwnPartOfRun, randomness: RoundRandomness
) -> dict[str, NDArray[np.float64]]:
    """Return the round's one part, ``statistics`` (S,), with its noise.

    Args:
        study: sets the clip norm and the noise.
        training: the site's training patients.
        size: the site's declared size, for which it counts at most.
        own: keeps the same numbers if the study leaves the normalisation to each site.
        randomness: the round's random numbers.
    """
    release_S = statistics_release(
        patient_contributions(training, study),
        study,
        size=size,
        deviation=statistics_noise(study),
        source=randomness.stream("noise"),
    )
    if "inputs" in study.personalisation.parts:
        own.change(STATISTICS, release_S)
    return {"statistics": release_S}
