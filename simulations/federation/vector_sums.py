"""The sum of the vectors that sites compute, wherever they compute them."""

from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from threading import Lock
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from consilium.client.round.answer import answer_or_refuse
from consilium.client.round.round_model import RoundModel
from consilium.shared.secure_sum.messages import Action, Refusal
from consilium.shared.secure_sum.tail import TAIL
from consilium.simulations.federation.clear_site import ClearSite, Drawn, Question
from consilium.simulations.federation.together import first_steps, waves

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, eq=False)
class Added:
    """The sum of vectors with their tails (spec.length + 6,), and the sites that sent none."""

    total: NDArray[np.uint32]
    refusals: Mapping[str, Refusal]


class VectorSums(Protocol):
    """Lets sites compute their vectors of a charged round, and adds them."""

    def add(self, question: Question, sites: Sequence[str], lost: Collection[str]) -> Added:
        """Return the sum over ``sites``; vectors of those that are ``lost`` are left out.

        The sum is one of whole numbers in a ring, so it does not depend on any order.
        """


class SumsHere:
    """Sites that compute in this process, in the threads of a pool.

    Args:
        sites: by name.
        model: the study's network.
        clip_norm: bound on the L2 norm of a patient's gradient.
        pool: where they compute.
        workers: how many at a time.
    """

    def __init__(
        self,
        sites: Mapping[str, ClearSite],
        *,
        model: RoundModel,
        clip_norm: float,
        pool: Executor,
        workers: int,
    ) -> None:
        self._sites, self._model, self._clip_norm = sites, model, clip_norm
        self._pool, self._workers = pool, workers

    def add(self, question: Question, sites: Sequence[str], lost: Collection[str]) -> Added:
        """See :meth:`VectorSums.add`."""
        total = np.zeros(question.spec.length + TAIL, np.uint32)
        adding = Lock()

        def draw(site: str) -> Drawn | Refusal | None:
            return or_refusal(site, lambda: self._sites[site].draw(question))

        def add(site: str) -> Refusal | None:
            first = firsts.get(site)
            vector = or_refusal(site, lambda: self._sites[site].vector(question, first))
            if isinstance(vector, Refusal):
                return vector
            if site not in lost:
                with adding:
                    np.add(total, vector, out=total)
            return None

        refusals: dict[str, Refusal] = {}
        for wave in waves(sites, self._model.parameters):
            drawn: dict[str, Drawn] = {}
            for site, found in zip(wave, self._pool.map(draw, wave), strict=True):
                if isinstance(found, Refusal):
                    refusals[site] = found
                elif found is not None:
                    drawn[site] = found
            weights_D = question.received_D[: self._model.parameters]
            firsts = first_steps(
                drawn, self._model, weights_D, self._clip_norm, self._pool, self._workers
            )
            able = [site for site in wave if site not in refusals]
            answers = zip(able, self._pool.map(add, able), strict=True)
            refusals |= {site: refusal for site, refusal in answers if refusal is not None}
        return Added(total=total, refusals=refusals)


def or_refusal(site: str, work: Callable[[], T]) -> T | Refusal:
    """Return what a site computes, or its refusal, which is what would leave a hospital."""
    made: list[T] = []

    def answer() -> bytes:
        made.append(work())
        return b""

    return answer_or_refuse(site, Action.UPDATE, answer).refusal or made[0]
