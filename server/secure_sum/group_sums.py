"""One secure sum for each group of sites, at the same time; a group may fail without the others.

A study has one group of all sites unless it trades privacy for robustness: then the coordinator
learns the sum of each group, and no more, and updates the model by the median of the groups.
"""

from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from consilium.server.secure_sum.exchange import RoundLog
from consilium.server.secure_sum.narrowing import Narrowing
from consilium.server.secure_sum.protocol import SecureSum, SumResult, blamed_on
from consilium.server.secure_sum.site_heads import SiteHeads
from consilium.server.secure_sum.sites import Sites
from consilium.shared.errors import RoundVoidError
from consilium.shared.secure_sum.fixed_point import VectorSpec
from consilium.shared.secure_sum.parameters import SumParameters

Check = Callable[[SumResult], None]
Layout = Callable[[SumParameters], VectorSpec]
T = TypeVar("T")


class GroupSum(Protocol):
    """What turns the vectors of a group's sites into their sum."""

    @property
    def parameters(self) -> SumParameters:
        """Of the group."""

    def open(self, *, round: int = 1, asked: Collection[str] | None = None) -> RoundLog:
        """See :meth:`.SecureSum.open`."""

    def sum(
        self,
        *,
        round: int,
        spec: VectorSpec,
        model: bytes | memoryview,
        configuration: bytes | Callable[[], bytes],
        asked: Collection[str] | None = None,
    ) -> SumResult:
        """See :meth:`.SecureSum.sum`."""


@dataclass(frozen=True, kw_only=True)
class GroupTotals:
    """The sums of the groups that gave one, and why the others did not.

    Attributes:
        totals: the sums, at least one.
        refusals: by site, one sentence on what went wrong with it or its group.
        garbage: of the groups without a sum, sets of sites in each of which at least one broke the
            protocol.
    """

    totals: tuple[SumResult, ...]
    refusals: dict[str, str]
    garbage: tuple[frozenset[str], ...] = ()

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
    """Sums of the groups of one run.

    Args:
        sums: one for each group.
        heads: the sites' newest audit heads.

    Attributes:
        heads: as they are now.
    """

    def __init__(self, sums: Sequence[GroupSum], heads: SiteHeads) -> None:
        self._sums, self.heads = tuple(sums), heads

    @classmethod
    def secure(
        cls,
        parameters: Sequence[SumParameters],
        sites: Sites,
        *,
        timeout_s: float,
        heads: SiteHeads | None = None,
    ) -> Self:
        """Return secure sums.

        Args:
            parameters: by group.
            sites: how to reach them.
            timeout_s: longest wait for the masked updates, in seconds.
            heads: the sites' newest audit heads; none are known unless given.
        """
        heads = heads or SiteHeads(identities(parameters))
        return cls(
            [SecureSum(group, sites, timeout_s=timeout_s, heads=heads) for group in parameters],
            heads,
        )

    def nothing_known(self) -> tuple[Narrowing, ...]:
        """Return for each group that nothing speaks against any of its sites."""
        return tuple(
            Narrowing(
                sites=group.parameters.roster.names,
                minimum=group.parameters.minimum_sites,
                culprits=max(1, group.parameters.collusion),
            )
            for group in self._sums
        )

    def learned(
        self,
        known: Sequence[Narrowing],
        *,
        given: Collection[str] = (),
        garbage: Sequence[Collection[str]] = (),
    ) -> tuple[Narrowing, ...]:
        """Return what is known of each group after a round; see :meth:`.Narrowing.after`.

        Args:
            known: what was known of each before.
            given: the sites in the sums of all groups.
            garbage: sets of sites, each of one group.
        """

        def of_group(group: GroupSum, before: Narrowing) -> Narrowing:
            return before.after(
                given=set(given) & set(before.sites),
                garbage=[sites for sites in garbage if set(sites) <= set(before.sites)],
                possible=lambda sites: group.parameters.supported(sites) == sites,
            )

        return tuple(map(of_group, self._sums, known))

    def open(self, *, round: int, known: Sequence[Narrowing] = ()) -> None:
        """Set up channels in every group and collect keys for the first round.

        Args:
            round: as in :meth:`SecureSum.open`.
            known: as in :meth:`sum`.

        Raises:
            RoundVoidError: half of the groups or more could not begin.
        """
        _most(self._each(known, lambda group, asked: group.open(round=round, asked=asked)))

    def sum(
        self,
        *,
        round: int,
        layout: Layout,
        model: bytes | memoryview,
        configuration: bytes | Callable[[], bytes],
        check: Check,
        known: Sequence[Narrowing] = (),
    ) -> GroupTotals:
        """Run one round in every group.

        Args:
            round: as in :meth:`SecureSum.sum`.
            layout: gives each group's layout of the vector.
            model: the same for every site.
            configuration: the same for every site of a group.
            check: raises RoundVoidError for a sum that must not be used.
            known: of each group, says which of its sites are asked; all unless given.

        Raises:
            RoundVoidError: half of the groups or more gave no sum.
        """

        def checked(group: GroupSum, asked: Collection[str]) -> SumResult:
            total = group.sum(
                round=round,
                spec=layout(group.parameters),
                model=model,
                configuration=configuration,
                asked=asked,
            )
            with blamed_on(total.survivors):
                check(total)
            return total

        outcomes = self._each(known, checked)
        totals = _most(outcomes)
        refusals = {site: why for total in totals for site, why in total.refusals.items()}
        for group, outcome in zip(self._sums, outcomes, strict=True):
            if isinstance(outcome, RoundVoidError):
                refusals |= dict.fromkeys(group.parameters.roster, f"its group: {outcome}")
        voids = [outcome for outcome in outcomes if isinstance(outcome, RoundVoidError)]
        garbage = tuple(sites for void in voids for sites in void.garbage)
        return GroupTotals(totals=totals, refusals=refusals, garbage=garbage)

    def _each(
        self, known: Sequence[Narrowing], step: Callable[[GroupSum, Collection[str]], T]
    ) -> list[T | RoundVoidError]:
        """Return the step's result or RoundVoidError for each group, in order."""

        def outcome(group: GroupSum, of_group: Narrowing) -> T | RoundVoidError:
            if of_group.hopeless:
                return RoundVoidError(no_sum_without(of_group))
            try:
                return step(group, of_group.asked)
            except RoundVoidError as error:
                return error

        known = known or self.nothing_known()
        if len(self._sums) == 1:
            return [outcome(self._sums[0], known[0])]
        with ThreadPoolExecutor(len(self._sums)) as pool:
            return list(pool.map(outcome, self._sums, known))


def identities(parameters: Sequence[SumParameters]) -> dict[str, bytes]:
    """Return each site's identity (32 bytes), over all groups."""
    return {site: key for group in parameters for site, key in group.roster.members}


def no_sum_without(known: Narrowing) -> str:
    """Return the sentence for a group that has too few sites left beside the suspects."""
    suspects, sites = ", ".join(known.left_out), len(known.sites)
    return (
        f"somebody among {suspects} sends garbage into the sums, and without them "
        f"{sites - len(known.left_out)} of {sites} sites remain where a sum needs {known.minimum}; "
        "settle it with these sites, and submit a study of the others"
    )


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
        f"needed ({'; '.join(map(str, reasons))})",
        garbage=[sites for reason in reasons for sites in reason.garbage],
    )
