"""For which patients does a model fail? One plain sentence each, by the rules below.

A model fails for a group

- at *telling patients apart*, when its AUROC there is more than ``AUROC_GAP`` below that of all
  others (without risks: when its accuracy or C-index is that much below everybody's, or its mean
  absolute error more than ``RATIO`` times as large);
- at *calibration*, when the outcome is more than ``RATIO`` times more or less frequent than
  predicted. If that is so for all patients together, a group is named beside them only if its
  ratio is as far from theirs.

Both count only if chance is an unlikely cause: at a level of 5 %, divided by the number of tests
(Bonferroni). Groups with too few patients are not judged, and a sentence names them.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any, Literal

from consilium.server.figures.groups import GroupFigures
from consilium.shared.figures.risk_curves import Share
from consilium.shared.figures.score_counts import NORMAL_95, Edges, metrics_from_counts

AUROC_GAP = 0.05
RATIO = 1.25
_LEVEL = 0.05
_TITLES = {
    "auroc": "AUROC",
    "c_index": "C-index",
    "accuracy": "accuracy",
    "mae": "mean absolute error",
}

Topic = Literal["discrimination", "calibration", "joining", "size"]


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """A finding about a group of patients or a hospital; see docs/run-json.md."""

    topic: Topic
    kind: str
    name: str
    serious: bool
    sentence: str

    def to_json(self) -> dict[str, Any]:
        """Return it as in ``run.json``."""
        return asdict(self)


def verdicts(groups: Sequence[GroupFigures], edges_L: Edges | None) -> tuple[Verdict, ...]:
    """Return the verdicts on groups, serious ones first.

    Args:
        groups: the group of all patients, then the others.
        edges_L: of the bins of their counts; None in tasks without risks.
    """
    if not groups:
        return ()
    everybody, *parts = groups
    judged = [group for group in parts if group.judged]
    z = NormalDist().inv_cdf(1 - _LEVEL / 2 / (2 * len(judged) + 1))
    found = [
        _serious("discrimination", group, sentence)
        for group in judged
        if (sentence := _tells_apart(group, everybody, edges_L, z))
    ]
    usual = 1.0
    if everybody.judged and (sentence := _calibrated(everybody, z)):
        found.append(_serious("calibration", everybody, sentence))
        usual = everybody.calibration.value if everybody.calibration else 1.0
    found += [
        _serious("calibration", group, sentence)
        for group in judged
        if (sentence := _calibrated(group, z, usual))
    ]
    return (*found, *_overall(everybody), *_quiet(judged, found), *_unjudged(parts))


def _serious(topic: Topic, group: GroupFigures, sentence: str) -> Verdict:
    who = group.group
    return Verdict(topic=topic, kind=who.kind, name=who.name, serious=True, sentence=sentence)


def _tells_apart(
    group: GroupFigures, everybody: GroupFigures, edges_L: Edges | None, z: float
) -> str | None:
    if group.counts_2B is not None and edges_L is not None:
        return _ranks(group, everybody, edges_L, z)
    if group.figures is None or everybody.figures is None:
        return None
    name, own = next(iter(group.figures.items()))
    others = everybody.figures[name]
    gap = own.value - others.value if name == "mae" else others.value - own.value
    least = (RATIO - 1) * others.value if name == "mae" else AUROC_GAP
    if gap <= max(least, z * math.hypot(_deviation(own), _deviation(others))):
        return None
    return (
        f"The model does worse {_where(group)}: {_TITLES[name]} {_interval(own)} against "
        f"{_number(others.value)} of all."
    )


def _ranks(group: GroupFigures, everybody: GroupFigures, edges_L: Edges, z: float) -> str | None:
    """Compare the group's AUROC with that of all others; a patient's rows count as one."""
    if group.counts_2B is None or everybody.counts_2B is None:
        return None
    rest_2B = (everybody.counts_2B - group.counts_2B) * everybody.scale
    own = metrics_from_counts(group.counts_2B * group.scale, edges_L)
    rest = metrics_from_counts(rest_2B, edges_L)
    if own is None or rest is None:
        return None
    gap = rest.auroc - own.auroc
    deviations = ((m.auroc_high - m.auroc_low) / 2 / NORMAL_95 for m in (own, rest))
    if gap <= max(AUROC_GAP, z * math.hypot(*deviations)):
        return None
    figure = Share(own.auroc, own.auroc_low, own.auroc_high)
    return (
        f"The model tells patients apart worse {_where(group)}: AUROC {_interval(figure)} against "
        f"{_number(rest.auroc)} of all others."
    )


def _calibrated(group: GroupFigures, z: float, usual: float = 1.0) -> str | None:
    """Return a sentence if the group's ratio is far from 1, and from ``usual``, everybody's."""
    ratio = group.calibration
    if ratio is None or group.expected is None or group.positives is None:
        return None
    if min(ratio.value, ratio.low) <= 0:
        return None
    chance = z / NORMAL_95 * math.log(ratio.high / ratio.low) / 2
    least = max(math.log(RATIO), chance)
    if min(abs(math.log(ratio.value)), abs(math.log(ratio.value / usual))) <= least:
        return None
    side = "too low" if ratio.value > 1 else "too high"
    others = "" if usual == 1 else f", against {_number(usual)} for everybody"
    return (
        f"Risks are {side} {_where(group)}: {group.positives:.0f} had the outcome and "
        f"{group.expected:.0f} were predicted, a ratio of {_interval(ratio)}{others}."
    )


def _overall(everybody: GroupFigures) -> Iterator[Verdict]:
    if everybody.figures is not None:
        name, figure = next(iter(everybody.figures.items()))
        yield Verdict(
            topic="discrimination",
            kind="all",
            name="all",
            serious=False,
            sentence=f"Of all {everybody.patients:.0f} patients evaluated, the model's "
            f"{_TITLES[name]} is {_interval(figure)}.",
        )


def _quiet(judged: Sequence[GroupFigures], found: Sequence[Verdict]) -> Iterator[Verdict]:
    if judged and not found:
        yield Verdict(
            topic="discrimination",
            kind="all",
            name="all",
            serious=False,
            sentence=f"None of the {len(judged)} groups judged stands out from the others by more "
            "than chance would explain.",
        )


def _unjudged(parts: Sequence[GroupFigures]) -> Iterator[Verdict]:
    few = [group for group in parts if not group.judged]
    if few:
        names = ", ".join(group.group.name for group in few)
        why = "too few patients" if few[0].released is None else "too few patients, or not released"
        yield Verdict(
            topic="size",
            kind=few[0].group.kind if len(few) == 1 else "all",
            name=names if len(few) == 1 else "all",
            serious=False,
            sentence=f"Not judged, {why}: {names}.",
        )


def _where(group: GroupFigures) -> str:
    who = group.group
    if who.kind == "all":
        return "for everybody together"
    return f"at {who.name}" if who.kind == "site" else f"in the group {who.name}"


def _deviation(figure: Share) -> float:
    return (figure.high - figure.low) / 2 / NORMAL_95


def _interval(figure: Share) -> str:
    low, high = _number(figure.low), _number(figure.high)
    return f"{_number(figure.value)} ({low} to {high})"


def _number(value: float) -> str:
    return f"{value:.2f}" if abs(value) < 10 else f"{value:.3g}"
