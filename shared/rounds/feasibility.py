"""What the feasibility round counts, and the noise on each count.

A cell is a number of persons: all of them; those with an outcome; those with at least one
measurement of a variable, or code of a column. Both sides derive the cells and their order from the
study alone.

Each person counts once in a cell, or not at all, however many stays the person has. So one person
more or less moves every cell by at most 1. With weights w the scaled counts (w_1 c_1, w_2 c_2, ...)
move by at most S = sqrt(sum of w^2) in L2 norm, and noise of standard deviation z S / w_i on cell i
is a Gaussian mechanism of noise multiplier z (Dwork and Roth 2014, appendix A). A question of m
cells (persons: 1, outcomes, variables) has the weight m^(-1/4) in each: of all weights these make
the variances of the three questions together least (Cauchy and Schwarz), and forty variables do
not drown the number of persons.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from consilium.shared.privacy.accounting import plan
from consilium.shared.study.definition import Study
from consilium.shared.study.input_names import token_names
from consilium.shared.study.output_names import output_names

ROUNDED = 2.0  # a size declared in one digit stands for at most 1.5 times as many


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One number of persons; ``name`` is empty for all of them."""

    kind: Literal["persons", "outcome", "variable"]
    name: str = ""


def feasibility_cells(study: Study) -> tuple[Cell, ...]:
    """Return the cells in their order: persons, then each outcome, then each variable.

    Of a regression the outcomes are the persons whose target is known, of survival those with the
    event by each cut.
    """
    return (
        Cell(kind="persons"),
        *(Cell(kind="outcome", name=name) for name in output_names(study)),
        *(Cell(kind="variable", name=name) for name in (*study.variables, *token_names(study))),
    )


def feasibility_weights(study: Study) -> NDArray[np.float64]:
    """Return each cell's weight in the sensitivity, shape (cells,)."""
    kinds = [cell.kind for cell in feasibility_cells(study)]
    return np.array([1 / math.sqrt(math.sqrt(kinds.count(kind))) for kind in kinds])


def feasibility_sensitivity(study: Study) -> float:
    """Return the largest L2 norm by which one person moves the weighted counts."""
    return math.sqrt(sum(weight * weight for weight in feasibility_weights(study).tolist()))


def feasibility_noise(study: Study) -> NDArray[np.float64]:
    """Return the standard deviation of a site's noise on each cell, in persons, shape (cells,).

    All 0 without privacy, and in a study that asks for no such count.
    """
    costs, weights = plan(study), feasibility_weights(study)
    if costs is None or costs.feasibility is None:
        return np.zeros_like(weights)
    return costs.feasibility.noise_multiplier * feasibility_sensitivity(study) / weights


def most_persons(study: Study, patients: int) -> float:
    """Return as how many persons a site counts at most that declared so many training patients."""
    return ROUNDED * patients / (1 - study.evaluation.validation_fraction)
