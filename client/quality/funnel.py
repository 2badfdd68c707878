"""Where the rows of each variable stayed: found, lost at which stage, kept."""

from collections.abc import Iterator
from dataclasses import dataclass

from consilium.client.sources.common.reasons import KEPT, LOSSES, OF_OTHERS
from consilium.client.sources.common.source import ReadReport
from consilium.shared.study.definition import Study
from consilium.shared.study.input_names import token_names

KEPT_ROWS = "kept"
HEADINGS = ("rows found", *LOSSES, KEPT_ROWS)


@dataclass(frozen=True, kw_only=True)
class Funnel:
    """One variable's rows.

    Attributes:
        name: the variable or column of codes.
        found: rows of the cohort's persons, or of no person known.
        lost: rows lost at each stage of :data:`LOSSES`, in that order.
        kept: rows that the study sees; the others lie outside its window or are repeated.
        of_others: rows of persons who have no stay in the cohort, not counted as found.
    """

    name: str
    found: int
    lost: tuple[int, ...]
    kept: int
    of_others: int

    @property
    def lost_share(self) -> float:
        """Share of the rows found that were lost, 0 if none were found."""
        return sum(self.lost) / max(1, self.found)

    @property
    def row(self) -> tuple[int, ...]:
        """The numbers under :data:`HEADINGS`."""
        return (self.found, *self.lost, self.kept)


def funnels(read: ReadReport, study: Study) -> Iterator[Funnel]:
    """Yield the funnel of every variable and column of codes, in the study's order."""
    for name in (*study.variables, *token_names(study)):
        stages = read.funnel.get(name, {})
        others = stages.get(OF_OTHERS, 0)
        yield Funnel(
            name=name,
            found=sum(stages.values()) - others,
            lost=tuple(stages.get(stage, 0) for stage in LOSSES),
            kept=stages.get(KEPT, 0),
            of_others=others,
        )
