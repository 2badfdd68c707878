"""What the feasibility round says: persons over all sites, with their error; small cells hidden."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from consilium.shared.figures.score_counts import NORMAL_95
from consilium.shared.files.json_record import JsonRecord
from consilium.shared.rounds.feasibility import feasibility_cells, feasibility_noise
from consilium.shared.study.definition import Study


@dataclass(frozen=True, kw_only=True)
class PersonTotal:
    """Persons in one cell, over the sites of the sum.

    Attributes:
        kind: what the cell is, as in :class:`consilium.shared.rounds.feasibility.Cell`.
        name: of the outcome or variable, empty for all persons.
        persons: their number with its noise; None where that is below the study's smallest cell.
        error: half the width of the 95 % interval; it depends on the noise alone, on no person.
    """

    kind: Literal["persons", "outcome", "variable"]
    name: str
    persons: int | None
    error: int

    def to_json(self) -> dict[str, Any]:
        """Return it as in a round's record; see docs/run-json.md."""
        return {
            "kind": self.kind,
            "name": self.name,
            "persons": self.persons,
            "error": self.error,
        }


def person_totals(
    study: Study, counts: NDArray[np.float64], *, sites: int, scale: float
) -> tuple[PersonTotal, ...]:
    """Return the totals of a study that asks for a feasibility round.

    Args:
        study: sets cells, noise and the smallest cell.
        counts: the sum over sites, each with its own noise, shape (cells,).
        sites: how many sites are in it.
        scale: ring units per person; numbers between two of them were rounded up or down by chance.
    """
    if study.feasibility is None:
        raise ValueError(f"study {study.name} asks for no feasibility round")
    noise, rounding = feasibility_noise(study), 0.5 / scale
    variance = sites * (noise**2 + np.where(noise > 0, rounding**2, 0.0))
    return tuple(
        PersonTotal(
            kind=cell.kind,
            name=cell.name,
            persons=int(whole) if whole >= study.feasibility.smallest_cell else None,
            error=math.ceil(NORMAL_95 * math.sqrt(of)),
        )
        for cell, whole, of in zip(feasibility_cells(study), np.rint(counts), variance, strict=True)
    )


def persons_in_words(study: Study, totals: Sequence[JsonRecord]) -> list[tuple[str, str, str]]:
    """Return of each total, as a round's record holds it: whose, how many, and their error."""
    known = " known" if study.task.kind == "regression" else ""
    ends = {"persons": "in the cohort", "outcome": known, "variable": " measured"}
    rows = []
    for total in totals:
        persons = total["persons"]
        shown = "suppressed" if persons is None else f"{persons}"
        named = f"with {total['name']}" if total["name"] else ""
        rows.append((f"{named}{ends[total['kind']]}", shown, f"± {total['error']}"))
    return rows
