"""One secure sum for each group of sites, at the same time; a group may fail without the others.

A study has one group of all sites unless it trades privacy for robustness: then the coordinator
learns the sum of each group, and no more, and updates the model by the median of the groups.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from consilium.server.secure_sum.protocol import SecureSum, SumResult
from consilium.server.secure_sum.site_heads import SiteHeads
from consilium.server.secure_sum.sites import Sites
from consilium.shared.errors import RoundVoidError
from consilium.shared.secure_sum.fixed_point import VectorSpec
from consilium.shared.secure_sum.parameters import SumParameters

Check = Callable[[SumResult], None]
Layout = Callable[[SumParameters], VectorSpec]
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class GroupTotals:
    """The sums of the groups that gave one, and why the others did not.

    Attributes:
        totals: the sums, at least one.
        refusals: by site, one sentence on what went wrong with it or its group.
    """

    totals: tuple[SumResult, ...]
    refusals: dict[str, str]

    def part(self, name: str) -> NDArray[np.float64]:
        """Return one segment's sum over all groups."""
        return np.asarray(sum(total.parts[name][:] for total in self.totals))

    @property
    def weight(self) -> int:
        """Sum of all survivors' declared sizes, in patients."""
        return sum(total.weight for total in self.totals)

    @property
    def survivors(self) -> tuple[str, ...]:
        """Sites in the sums, sorted."""
        return tuple(sorted(site for total in self.totals for site in total.survivors))

    @property
    def seconds(self) -> dict[str, float]:
        """By phase, the time of the group that took longest."""
        phases = self.totals[0].seconds
        return {phase: max(total.seconds[phase] for total in self.totals) for phase in phases}

    @property
    def audit_heads(self) -> dict[str, bytes]:
        """By survivor, the audit head that came with its update."""
        return {site: head for total in self.totals for site, head in total.audit_heads.items()}

    @property
    def bytes_up(self) -> dict[str, int]:
        """By site, bytes it sent."""
        return {site: count for total in self.totals for site, count in total.bytes_up.items()}

    @property
    def bytes_down(self) -> dict[str, int]:
        """By site, bytes it was sent."""
        return {site: count for total in self.totals for site, count in total.bytes_down.items()}


class GroupSums:
    """Secure sums of the groups of one run.

    Args:
        parameters: by group.
        sites: how to reach them.
        timeout_s: longest wait for the masked updates, in seconds.
        heads: the sites' newest audit heads; none are known unless given.

    Attributes:
        heads: as they are now.
    """

    def __init__(
        self,
        parameters: Sequence[SumParameters],
        sites: Sites,
        *,
        timeout_s: float,
        heads: SiteHeads | None = None,
    ) -> None:
        identities = {site: key for group in parameters for site, key in group.roster.members}
        self.heads = heads or SiteHeads(identities)
        self._sums = tuple(
            SecureSum(group, sites, timeout_s=timeout_s, heads=self.heads) for group in parameters
        )

    def open(self, *, round: int) -> None:
        """Set up channels in every group and collect keys for the first round.

        Raises:
            RoundVoidError: half of the groups or more could not begin.
        """
        _most(self._each(lambda group: group.open(round=round)))

    def sum(
        self,
        *,
        round: int,
        layout: Layout,
        model: bytes | memoryview,
        configuration: bytes | Callable[[], bytes],
        check: Check,
    ) -> GroupTotals:
        """Run one round in every group.

        Args:
            round: as in :meth:`SecureSum.sum`.
            layout: gives each group's layout of the vector.
            model: the same for every site.
            configuration: the same for every site of a group.
            check: raises RoundVoidError for a sum that must not be used.

        Raises:
            RoundVoidError: half of the groups or more gave no sum.
        """

        def checked(group: SecureSum) -> SumResult:
            spec = layout(group.parameters)
            total = group.sum(round=round, spec=spec, model=model, configuration=configuration)
            check(total)
            return total

        outcomes = self._each(checked)
        totals = _most(outcomes)
        refusals = {site: why for total in totals for site, why in total.refusals.items()}
        for group, outcome in zip(self._sums, outcomes, strict=True):
            if isinstance(outcome, RoundVoidError):
                refusals |= dict.fromkeys(group.parameters.roster, f"its group: {outcome}")
        return GroupTotals(totals=totals, refusals=refusals)

    def _each(self, step: Callable[[SecureSum], T]) -> list[T | RoundVoidError]:
        """Return the step's result or RoundVoidError for each group, in order."""

        def outcome(group: SecureSum) -> T | RoundVoidError:
            try:
                return step(group)
            except RoundVoidError as error:
                return error

        if len(self._sums) == 1:
            return [outcome(self._sums[0])]
        with ThreadPoolExecutor(len(self._sums)) as pool:
            return list(pool.map(outcome, self._sums))


def _most(outcomes: Sequence[T | RoundVoidError]) -> tuple[T, ...]:
    """Return what the groups gave, if more than half of them gave something.

    Raises:
        RoundVoidError: no more than half did; the sentence has every reason.
    """
    given = tuple(outcome for outcome in outcomes if not isinstance(outcome, RoundVoidError))
    if len(given) * 2 > len(outcomes):
        return given
    reasons = [outcome for outcome in outcomes if isinstance(outcome, RoundVoidError)]
    if len(outcomes) == 1:
        raise reasons[0]
    raise RoundVoidError(
        f"{len(given)} of {len(outcomes)} groups of sites gave a sum, and more than half are "
        f"needed ({'; '.join(map(str, reasons))})"
    )
