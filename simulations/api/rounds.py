"""A run's rounds as frozen objects."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from consilium.simulations.report.rounds_export import Round, figures


@dataclass(frozen=True, kw_only=True)
class RoundFigures:
    """One round: who took part, what it cost, and how the model did.

    Attributes:
        round: number of its secure sum, from 1; never used twice in a run.
        purpose: what was summed.
        void: why the round gave no sum; None if it gave one.
        sites: the sites in the sum.
        refusals: by site, one sentence on what went wrong with it.
        figures: numbers by name, as ``consilium-simulate rounds`` prints them: ``seconds``,
            ``epsilon``, ``update_norm``, ``bytes_up_per_site``, ``test/auroc``, ``test/loss``,
            ``validation/loss`` and so on; figures that the round lacks are left out.
    """

    round: int
    purpose: Literal["statistics", "training", "calibration", "evaluation"]
    void: str | None
    sites: tuple[str, ...]
    refusals: Mapping[str, str]
    figures: Mapping[str, float]

    @property
    def epsilon(self) -> float | None:
        """Epsilon spent on a training patient so far; None without privacy."""
        return self.figures.get("epsilon")

    @property
    def seconds(self) -> float:
        """How long the round took."""
        return self.figures["seconds"]


def round_figures(record: Round) -> RoundFigures:
    """Return a round from its record; see docs/run-json.md."""
    return RoundFigures(
        round=record["round"],
        purpose=record["purpose"],
        void=record["void"],
        sites=tuple(record["sites"]),
        refusals=MappingProxyType(dict(record["refusals"])),
        figures=MappingProxyType(figures(record)),
    )


def as_rows(rounds: Sequence[RoundFigures]) -> list[dict[str, Any]]:
    """Return a row for each round: number, purpose, whether it was void, and every figure."""
    return [
        {"round": one.round, "purpose": one.purpose, **one.figures, "void": one.void is not None}
        for one in rounds
    ]
