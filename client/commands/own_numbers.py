"""A hospital's own numbers of persons, exact: for its own people, before anything is summed."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from consilium.client.records.cohort import Cohort
from consilium.client.records.person_counts import cohort_counts
from consilium.shared.rounds.feasibility import feasibility_cells
from consilium.shared.study.definition import Study


def own_numbers(cohort: Cohort, study: Study) -> list[str]:
    """Return a cohort's persons by outcome and by variable measured, as sentences."""
    return person_lines(cohort_counts(cohort, study), study)


def person_lines(counts: NDArray[np.float64], study: Study) -> list[str]:
    """Return numbers of persons (cells,) as sentences."""
    found: dict[str, list[str]] = {"persons": [], "outcome": [], "variable": []}
    for cell, persons in zip(feasibility_cells(study), counts, strict=True):
        found[cell.kind].append(f"{cell.name} {persons:.0f}".strip())
    outcomes = ", ".join(found["outcome"])
    known = " known" if study.task.kind == "regression" else ""
    return [
        f"This hospital's persons, exact and shown here alone: {found['persons'][0]}; with an "
        f"outcome{known}: {outcomes}.",
        f"Persons with at least one measurement: {', '.join(found['variable'])}.",
    ]


def persons_json(counts: NDArray[np.float64], study: Study) -> list[dict[str, Any]]:
    """Return numbers of persons (cells,) as plain data."""
    return [
        {"kind": cell.kind, "name": cell.name, "persons": int(persons)}
        for cell, persons in zip(feasibility_cells(study), counts, strict=True)
    ]
