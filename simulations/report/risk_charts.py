"""Charts of risks, from counts in bins: ROC, precision, calibration and decision curves.

Intervals are pointwise, of 95 %: Wilson's for shares, normal for net benefit. A patient with
several stays or steps counts as one.
"""

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from consilium.shared.figures.recalibration import fit_recalibration
from consilium.shared.figures.risk_curves import (
    OperatingPoint,
    calibration_groups,
)
from consilium.shared.figures.score_counts import Edges, bin_centers
from consilium.simulations.report.decision_curves import alarms_chart, decision_chart, prevalence_of
from consilium.simulations.report.drawing import (
    BLUE,
    GREY,
    Chart,
    Table,
    between,
    number,
    picture,
    plain_ticks,
    thinned,
)
from consilium.simulations.report.groups import Group, points_of

SMALLEST = 5  # fewest patients of a group whose calibration is drawn


def risk_charts(group: Group, *, whose: str) -> list[Chart]:
    """Return the charts of all test patients' risks; none if all have the same outcome.

    Args:
        group: counts of all test patients.
        whose: what has a risk of its own, such as ``patients`` or ``hours``.
    """
    if group.counts_2B is None or group.edges_L is None or not (points := points_of(group)):
        return []
    return [
        _discrimination(group, points, whose),
        *_calibration(group, group.counts_2B, group.edges_L, whose),
        *decision_chart(points),
        alarms_chart(points, whose),
    ]


def _discrimination(group: Group, points: tuple[OperatingPoint, ...], whose: str) -> Chart:
    prevalence, area, pooled = prevalence_of(points[0]), "", whose.startswith("labels")
    if (auroc := group.figures.get("auroc")) and not pooled:
        area = f"AUROC {auroc.value:.3f} ({between(auroc.low, auroc.high)})"
    alarming = [p for p in points if p.precision is not None and p.true_positives >= 1]

    def draw(figure: Figure) -> None:
        left, right = figure.subplots(1, 2)
        false = [1, *(1 - p.specificity.value for p in points), 0]
        bounds = [
            [end, *(getattr(p.sensitivity, side) for p in points), start]
            for side, end, start in (("low", 1, 0), ("value", 1, 0), ("high", 1, 0))
        ]
        left.fill_between(false, bounds[0], bounds[2], color=BLUE, alpha=0.18, lw=0)
        left.plot(false, bounds[1], color=BLUE)
        left.plot([0, 1], [0, 1], color=GREY, ls="--", lw=1)
        left.set(title="ROC curve", xlabel="1 - specificity (false alarms)", ylabel="sensitivity")
        left.text(0.98, 0.05, area, ha="right", transform=left.transAxes, color=BLUE)
        found = [p.sensitivity.value for p in alarming]
        shares = [p.precision for p in alarming if p.precision]
        right.fill_between(
            found, [s.low for s in shares], [s.high for s in shares], color=BLUE, alpha=0.18, lw=0
        )
        right.plot(found, [s.value for s in shares], color=BLUE)
        everybody = f"alarm for everybody: {prevalence:.2f}"
        right.axhline(prevalence, color=GREY, ls="--", lw=1)
        below = prevalence > 0.15  # the label goes where a useful model's curve is not
        right.text(0.02, prevalence + (-0.02 if below else 0.02), everybody, color=GREY,
                   va="top" if below else "bottom")  # fmt: skip
        right.set(title="Precision and recall", xlabel="sensitivity (recall)",
                  ylabel="precision: alarms that are true")  # fmt: skip
        for axes in (left, right):
            axes.set(xlim=(0, 1), ylim=(0, 1.005), aspect="equal")

    rows = (
        (
            f"{p.threshold:.4f}",
            f"{number(p.sensitivity.value)} ({between(p.sensitivity.low, p.sensitivity.high)})",
            f"{number(p.specificity.value)} ({between(p.specificity.low, p.specificity.high)})",
            f"{number(p.precision.value)} ({between(p.precision.low, p.precision.high)})"
            if p.precision
            else "–",
        )
        for p in points
        if 0.001 <= p.alarm_rate.value <= 0.999
    )
    return Chart(
        name="discrimination",
        title="Does it tell patients apart?",
        alt=f"{area or 'Pooled labels'}; the precision starts from {prevalence:.2f}, the "
        "share with the outcome.",
        caption=f"Over {whose}; bands are pointwise 95 % intervals. The dashed lines are a model "
        "that knows nothing."
        + (" Labels are pooled here; the AUROC of the summary is their mean." if pooled else ""),
        drawing=picture("discrimination", draw, height=3.9),
        table=Table(
            headings=("alarm from risk", "sensitivity", "specificity", "precision"),
            rows=thinned(rows),
        ),
    )


def _calibration(
    group: Group, counts_2B: NDArray[np.float64], edges_L: Edges, whose: str
) -> list[Chart]:
    groups = [g for g in calibration_groups(counts_2B, edges_L) if g.patients >= SMALLEST]
    if not groups:
        return []
    fitted = fit_recalibration(counts_2B, edges_L)
    total_B = counts_2B.sum(axis=0)
    top = min(1.0, 1.1 * max(max(g.predicted, g.observed.high) for g in groups))

    def draw(figure: Figure) -> None:
        panels = figure.subplots(2, 2, sharex="col", height_ratios=(4, 1))
        reach = [(g.observed.value - g.observed.low, g.observed.high - g.observed.value)
                 for g in groups]  # fmt: skip
        errors = np.maximum(np.array(reach).T, 0.0)
        x, y = [g.predicted for g in groups], [g.observed.value for g in groups]
        floor = max(0.5 * min([*x, *(v for v in y if v > 0)]), 1e-5)
        for low, scale, (upper, lower) in zip(
            (0.0, floor), ("linear", "log"), panels.T, strict=True
        ):
            upper.plot([low, top], [low, top], color=GREY, ls="--", lw=1, label="perfect")
            label = f"a tenth of {whose}"
            upper.errorbar(x, y, errors, fmt="o", ms=5, color=BLUE, label=label)
            upper.set(xscale=scale, yscale=scale, xlim=(low, top), ylim=(low, top))
            upper.set_title("the whole range" if scale == "linear" else "low risks: logarithmic")
            edges = np.linspace(low, top, 31) if low == 0 else np.geomspace(low, top, 31)
            risks_B = np.clip(bin_centers(edges_L), low, top)
            lower.hist(risks_B, bins=edges, weights=total_B, color=GREY)
            lower.set(xlabel="predicted risk")
            if scale == "log":
                plain_ticks(upper.yaxis)
                plain_ticks(lower.xaxis)
        panels[0, 0].legend(loc="upper left")
        panels[0, 0].set_ylabel("share that had the outcome")
        panels[1, 0].set_ylabel("patients")

    slope = (
        f" Calibration slope {fitted.slope:.2f}, intercept {fitted.intercept:+.2f} "
        "(1 and 0 are perfect; a slope below 1: risks are too extreme)."
        if fitted
        else ""
    )
    ratio = group.calibration
    sentence = (
        f" In all, {group.positives:.0f} had the outcome and {group.expected:.0f} were predicted: "
        f"ratio {ratio.value:.2f} ({between(ratio.low, ratio.high, 2)})."
        if ratio and group.expected is not None
        else ""
    )
    return [
        Chart(
            name="calibration",
            title="Can its risks be believed?",
            alt="Predicted and observed risk in groups, from "
            f"{groups[0].predicted:.3f} predicted and {groups[0].observed.value:.3f} observed to "
            f"{groups[-1].predicted:.3f} predicted and {groups[-1].observed.value:.3f} observed."
            + sentence,
            caption="Points above the dashed line: the model says too little; below: too much. "
            f"Bars: 95 % intervals. Beneath: how many have which risk.{sentence}{slope}",
            drawing=picture("calibration", draw, height=4.3),
            table=Table(
                headings=("mean predicted", "observed", "95 % interval", "patients"),
                rows=tuple(
                    (
                        number(g.predicted),
                        number(g.observed.value),
                        between(g.observed.low, g.observed.high),
                        f"{g.patients:.0f}",
                    )
                    for g in groups
                ),
            ),
        )
    ]
