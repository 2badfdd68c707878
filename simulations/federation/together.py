"""The first step of all sites at once: in a round they begin with the same weights.

A patient's clipped gradient depends on that patient's records alone, so it does not matter who
else goes through the network at the same time.
"""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor

import numpy as np
from numpy.typing import NDArray

from consilium.client.round.gradients import clipped_sums_together
from consilium.client.round.round_model import RoundModel
from consilium.client.round.training import FirstStep
from consilium.simulations.federation.clear_site import Drawn

SUMS = 1 << 20  # most numbers of sites' sums in memory at once: 8 MiB of float64


def waves(sites: Sequence[str], parameters: int) -> Iterator[list[str]]:
    """Split sites into as few as their sums of ``parameters`` numbers each fit in memory."""
    size = max(1, SUMS // parameters)
    for first in range(0, len(sites), size):
        yield list(sites[first : first + size])


def first_steps(
    samples: Mapping[str, Drawn],
    model: RoundModel,
    weights_D: NDArray[np.float32],
    clip_norm: float,
    pool: Executor,
    workers: int,
) -> dict[str, FirstStep]:
    """Return the first step of each site that has drawn a sample for it.

    Args:
        samples: by site, each with the keystream that it was drawn from.
        model: the study's network.
        weights_D: with which all sites begin.
        clip_norm: bound on the L2 norm of each patient's gradient.
        pool: where to compute.
        workers: how many computations at the same time.
    """
    drawn = [(site, *one) for site, one in samples.items()]
    size = max(1, -(-len(drawn) // workers))

    def compute(first: int) -> list[tuple[str, FirstStep]]:
        part = drawn[first : first + size]
        network = model.with_weights(weights_D).train()
        sums = clipped_sums_together(network, [sample for _, sample, _ in part], clip_norm)
        return [
            (site, FirstStep(chosen=sample.chosen, source=source, sum_D=sum_D, loss_N=loss_N))
            for (site, sample, source), (sum_D, loss_N) in zip(part, sums, strict=True)
        ]

    return dict(one for part in pool.map(compute, range(0, len(drawn), size)) for one in part)
