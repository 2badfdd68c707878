"""Charts of acting on risks: decision curves, and alarms: true, false and missed.

Both follow from counts at thresholds; intervals of net benefit are normal, pointwise, of 95 %.
"""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from consilium.shared.figures.risk_curves import OperatingPoint
from consilium.simulations.report.drawing import (
    BLUE,
    GREEN,
    INK,
    ORANGE,
    PALE,
    Chart,
    Table,
    between,
    number,
    percent,
    picture,
    thinned,
)

LEAST_ALARMS = 0.005  # a decision curve ends where a smaller share of patients gets an alarm,
FEWEST_ALARMS = 10  # or fewer patients
SENSITIVITIES = (0.95, 0.9, 0.8, 0.6, 0.4)


def at_sensitivity(points: tuple[OperatingPoint, ...], wanted: float) -> OperatingPoint:
    """Return the point with the highest threshold whose sensitivity is at least ``wanted``."""
    return max(
        (p for p in points if p.sensitivity.value >= wanted),
        key=lambda p: p.threshold,
        default=points[0],
    )


def prevalence_of(point: OperatingPoint) -> float:
    """Return the share of patients with the outcome."""
    positives = point.true_positives + point.false_negatives
    return positives / (positives + point.false_positives + point.true_negatives)


def decision_chart(points: tuple[OperatingPoint, ...]) -> list[Chart]:
    """Return the decision curve; none if nearly no patient would get an alarm."""
    shown = [
        p
        for p in points
        if p.threshold >= 0.005
        and p.alarm_rate.value >= LEAST_ALARMS
        and p.true_positives + p.false_positives >= FEWEST_ALARMS
    ]
    if len(shown) < 2:
        return []
    prevalence = prevalence_of(points[0])
    everybody = [prevalence - (1 - prevalence) * p.threshold / (1 - p.threshold) for p in shown]
    useful = _widest(shown, everybody)

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        x = [p.threshold for p in shown]
        axes.fill_between(
            x, [p.net_benefit.low for p in shown], [p.net_benefit.high for p in shown],
            color=BLUE, alpha=0.18, lw=0,
        )  # fmt: skip
        axes.plot(x, [p.net_benefit.value for p in shown], color=BLUE, label="this model")
        axes.plot(x, everybody, color=ORANGE, ls="-.", label="alarm for everybody")
        axes.axhline(0, color=GREEN, ls="--", label="alarm for nobody")
        axes.set_ylim(-0.25 * prevalence, 1.1 * prevalence)
        axes.set_xlim(left=0)
        axes.xaxis.set_major_formatter(PercentFormatter(1.0))
        axes.set(xlabel="risk from which one would act", ylabel="net benefit, per patient")
        axes.legend(loc="upper right")

    span = f"between {percent(useful[0])} and {percent(useful[1])}" if useful else "at no risk"
    return [
        Chart(
            name="decision",
            title="Would acting on it do more good than harm?",
            alt=f"The model's net benefit is above alarming for everybody and for nobody {span}.",
            caption="Net benefit: true alarms a patient, less false ones at the exchange rate that "
            "the threshold implies (Vickers & Elkin 2006). The model's estimate is the highest "
            f"{span}. Only a clinician can say which threshold fits the action.",
            drawing=picture("decision", draw, width=6.4, height=3.3),
            table=Table(
                headings=("act from risk", "this model", "95 % interval", "for everybody"),
                rows=thinned(
                    (
                        percent(p.threshold, 1),
                        number(p.net_benefit.value, 4),
                        between(p.net_benefit.low, p.net_benefit.high, 4),
                        number(alone, 4),
                    )
                    for p, alone in zip(shown, everybody, strict=True)
                ),
            ),
        )
    ]


def _widest(
    shown: Sequence[OperatingPoint], everybody: Sequence[float]
) -> tuple[float, float] | None:
    """Return the ends of the widest range of thresholds at which the model is best everywhere."""
    widest: tuple[float, float] | None = None
    start: float | None = None
    for point, alone in zip(shown, everybody, strict=True):
        if point.net_benefit.value <= max(alone, 0.0) + 1e-9:
            start = None
            continue
        start = point.threshold if start is None else start
        if widest is None or point.threshold - start > widest[1] - widest[0]:
            widest = start, point.threshold
    return widest


def alarms_chart(points: tuple[OperatingPoint, ...], whose: str) -> Chart:
    """Return the chart of true, false and missed alarms at thresholds of given sensitivity."""
    chosen = [at_sensitivity(points, wanted) for wanted in SENSITIVITIES]
    labels = [f"find {percent(wanted)}" for wanted in SENSITIVITIES]
    total = 100 / (chosen[0].true_positives + chosen[0].false_positives
                   + chosen[0].true_negatives + chosen[0].false_negatives)  # fmt: skip

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        rows = np.arange(len(chosen))
        parts = (
            ("true alarms", BLUE, "white", [p.true_positives for p in chosen]),
            ("false alarms", ORANGE, "white", [p.false_positives for p in chosen]),
            ("missed", PALE, INK, [p.false_negatives for p in chosen]),
        )
        left = np.zeros(len(chosen))
        total_shown = total * max(p.true_positives + p.false_positives + p.false_negatives
                                  for p in chosen)  # fmt: skip
        for label, colour, ink, counts in parts:
            width = np.array(counts) * total
            axes.barh(rows, width, 0.6, left=left, color=colour, label=label)
            for row, (start, part) in enumerate(zip(left, width, strict=True)):
                if part >= 0.02 * total_shown:
                    axes.text(start + part / 2, row, f"{part:.0f}", ha="center", va="center",
                              color=ink, weight="bold")  # fmt: skip
            left += width
        axes.set_yticks(rows, labels)
        axes.set_ylabel("threshold set to")
        axes.set_ylim(len(chosen) - 0.4, -0.6)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel(f"of 100 {whose}")
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=3)

    middle = chosen[SENSITIVITIES.index(0.8)]
    return Chart(
        name="alarms",
        title="What would alarms be worth?",
        alt=f"To find {percent(middle.sensitivity.value)} of those with the outcome, "
        f"{percent(middle.alarm_rate.value)} of {whose} are alarmed about, and "
        f"{percent(middle.precision.value if middle.precision else None)} of alarms are true.",
        caption=f"Of 100 {whose}, if the threshold is set to find this share of those with the "
        "outcome. Thresholds were found on the same patients, so a new hospital will differ.",
        drawing=picture("alarms", draw, width=6.8, height=2.9),
        table=Table(
            headings=(
                "at least",
                "alarm from risk",
                "alarms per 100",
                "of them true",
                "specificity",
            ),
            rows=tuple(
                (
                    label,
                    f"{p.threshold:.4f}",
                    f"{100 * p.alarm_rate.value:.1f}",
                    percent(p.precision.value, 1) if p.precision else "–",
                    percent(p.specificity.value, 1),
                )
                for label, p in zip(labels, chosen, strict=True)
            ),
        ),
    )
