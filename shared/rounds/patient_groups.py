"""Groups of patients that a study's last evaluation reports separately, and what it sums for each.

Both sides derive groups, their order and the layout of their sums from the study alone. A group's
block holds, where the task has risks, the sum of risks and a table (2, B) of weights by outcome and
bin, with the labels of a multi-label task pooled. For survival there is such a table of each
interval, by the risk at the horizon. Otherwise it holds the number of patients, and
that of patients recognised (multi-class) or the sum of their absolute errors, each error in
spreads / ``LARGEST_ERROR`` and at most 1.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from consilium.shared.figures.score_counts import Edges, first_edges
from consilium.shared.study.definition import Study

WITH_RISKS = ("binary", "multilabel")
_COARSER = 8  # a group has fewer patients, and a site's noise is on every bin of every group
_FEWEST_BINS = 8


@dataclass(frozen=True, kw_only=True)
class PatientGroup:
    """One group. For a subgroup: ``variable`` defines it; ``part`` is its index, from 0.

    Each site's patients are a group of kind ``site``, all patients together one of kind ``all``.
    """

    kind: Literal["all", "site", "subgroup"]
    name: str
    variable: str | None = None
    part: int = 0


EVERYBODY = PatientGroup(kind="all", name="all")


def patient_groups(study: Study) -> tuple[PatientGroup, ...]:
    """Return all groups of the study's last evaluation, in the order of their blocks.

    Empty if the study asks neither for subgroups nor for figures by site.
    """
    sites = study.sites if study.evaluation.per_site else ()
    parts = (*subgroups(study), *(PatientGroup(kind="site", name=site) for site in sites))
    return (EVERYBODY, *parts) if parts else ()


def subgroups(study: Study) -> tuple[PatientGroup, ...]:
    """Return the groups that the study defines by a static variable."""
    return tuple(
        PatientGroup(kind="subgroup", name=name, variable=variable, part=part)
        for variable, how in study.evaluation.subgroups.items()
        for part, name in enumerate(how.names or _ranges(variable, how.cuts))
    )


def memberships(study: Study) -> int:
    """Return in how many ways patients are grouped; each way divides a patient's weight of 1."""
    ways = len(study.evaluation.subgroups) + int(study.evaluation.per_site)
    return ways + 1 if ways else 0  # all patients together are a group, too


def block_size(study: Study) -> int:
    """Return how many numbers are summed for each group."""
    if study.task.kind == "survival":
        return 1 + 2 * study.task.outputs * group_bins(study)
    return 1 + 2 * group_bins(study) if study.task.kind in WITH_RISKS else 2


def block_parts(study: Study) -> int:
    """Return of how many parts, to each of which a patient adds a norm of 1, a block is made."""
    return 1 + (study.task.outputs if study.task.kind == "survival" else 1)


def group_bins(study: Study) -> int:
    """Return the number of bins of a group's table."""
    return min(study.bins, max(_FEWEST_BINS, study.bins // _COARSER))


def group_edges(study: Study, edges_KL: NDArray[np.float32]) -> Edges:
    """Return the edges of a group's bins: evenly chosen from the edges used for all patients.

    Pooled labels each have edges of their own, so their groups use ``first_edges``; the intervals
    of survival have the same.
    """
    bins = group_bins(study)
    if len(edges_KL) != 1 and study.task.kind != "survival":
        return first_edges(bins)
    place = np.arange(1, bins) * study.bins // bins - 1
    return np.asarray(edges_KL[0][place], dtype=np.float32)


def _ranges(variable: str, cuts: tuple[float, ...]) -> tuple[str, ...]:
    between = (f"{variable} {a:g} to {b:g}" for a, b in pairwise(cuts))
    return (f"{variable} below {cuts[0]:g}", *between, f"{variable} {cuts[-1]:g} and above")
