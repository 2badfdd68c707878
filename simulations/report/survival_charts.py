"""Charts of a survival study: Kaplan-Meier curves by predicted risk and by group, and calibration.

All are drawn from the figures of :class:`consilium.shared.figures.survival_counts.SurvivalFigures`
in ``run.json``; bands are pointwise 95 % intervals.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from consilium.shared.files.json_record import JsonRecord
from consilium.shared.study.definition import Study
from consilium.simulations.report.drawing import (
    BLUE,
    COLOURS,
    GREY,
    ORANGE,
    Chart,
    Table,
    between,
    number,
    percent,
    picture,
)

SMALLEST = 5  # fewest patients of a group that is drawn
_MOST_CURVES = len(COLOURS)
_LEGIBLE = 0.03  # of the axis; times that are nearer to each other are not all written at it
_RISKS = ("lowest", "middle", "highest")


def survival_charts(study: Study, record: JsonRecord) -> list[Chart]:
    """Return the charts of all test patients; none in other tasks, or without pairs to compare."""
    whole = next((g for g in record.get("groups") or () if g["kind"] == "all"), None)
    found = None if whole is None else whole.get("survival")
    if found is None:
        return []
    return [
        _by_risk(study, found),
        _calibration(study, found),
        _by_interval(study, found, _validation(record)),
    ]


def curves_by_group(study: Study, record: JsonRecord) -> list[Chart]:
    """Return Kaplan-Meier curves of the study's subgroups and hospitals, a chart for each way."""
    ways: dict[str, list[Mapping[str, Any]]] = {}
    for group in record.get("groups") or ():
        if group["kind"] != "all" and group.get("survival") and group["patients"] >= SMALLEST:
            ways.setdefault(group["variable"] or "hospital", []).append(group)
    return [
        _curves(
            study,
            name=f"survival-by-{place}",
            title=f"Survival by {way}",
            curves=[(g["name"], g["survival"]["whole"]) for g in groups[:_MOST_CURVES]],
            about="Diamonds: what the model predicted on average by the horizon.",
        )
        for place, (way, groups) in enumerate(ways.items())
    ]


def _by_risk(study: Study, found: JsonRecord) -> Chart:
    groups = [g for g in found["risk_groups"] if g["patients"] >= SMALLEST]
    names = _RISKS if len(groups) == len(_RISKS) else [str(n + 1) for n in range(len(groups))]
    score = found["c_index"]
    return _curves(
        study,
        name="survival",
        title="Does it tell apart who has the event, and when?",
        curves=[(f"{name} risks", group) for name, group in zip(names, groups, strict=True)],
        about=f"C-index {score['value']:.3f} ({between(score['low'], score['high'])}). Patients in "
        "thirds of the predicted risk; diamonds: what was predicted for them by the horizon.",
    )


def _curves(
    study: Study,
    *,
    name: str,
    title: str,
    curves: Sequence[tuple[str, JsonRecord]],
    about: str,
) -> Chart:
    task = study.task
    times = [task.start, *task.cuts]
    marked = times[-1:]
    for time in reversed(times[:-1]):
        if marked[0] - time >= _LEGIBLE * (times[-1] - times[0]):
            marked.insert(0, time)

    def draw(figure: Figure) -> None:
        axes: Axes = figure.subplots()
        for colour, (what, group) in zip(COLOURS, curves, strict=False):
            value, low, high = (
                np.array([1.0, *(share[side] for share in group["curve"])])
                for side in ("value", "low", "high")
            )
            label = f"{what} (n = {group['patients']:.0f})"
            axes.plot(times, value, marker=".", color=colour, label=label)
            axes.fill_between(times, low, high, color=colour, alpha=0.15, lw=0)
            axes.plot(times[-1], 1 - group["predicted"], "D", ms=7, color=colour, clip_on=False)
        axes.set(
            xlabel=f"time ({task.time_unit})",
            ylabel="share without the event",
            xlim=(times[0], times[-1]),
            ylim=(0, 1.005),
        )
        axes.set_xticks(marked, [f"{time:g}" for time in marked], rotation=30)
        axes.legend(loc="lower left")

    return Chart(
        name=name,
        title=title,
        alt="; ".join(
            f"{what}: {percent(group['curve'][-1]['value'])} without the event at the horizon"
            for what, group in curves
        )
        + ".",
        caption="Kaplan-Meier estimates at the ends of the study's intervals, joined by straight "
        f"lines. {about}",
        drawing=picture(name, draw, height=4.0),
        table=Table(
            headings=("patients", *(f"{cut:g} {task.time_unit}" for cut in task.cuts), "predicted"),
            rows=tuple(
                (
                    f"{what}, n = {group['patients']:.0f}",
                    *(
                        f"{number(s['value'])} ({between(s['low'], s['high'])})"
                        for s in group["curve"]
                    ),
                    number(1 - group["predicted"]),
                )
                for what, group in curves
            ),
        ),
    )


def _calibration(study: Study, found: JsonRecord) -> Chart:
    groups = [g for g in found["calibration"] if g["patients"] >= SMALLEST]
    predicted = [g["predicted"] for g in groups]
    observed = [1 - g["curve"][-1]["value"] for g in groups]
    low = [1 - g["curve"][-1]["high"] for g in groups]
    high = [1 - g["curve"][-1]["low"] for g in groups]
    whole = found["whole"]
    seen, said = 1 - whole["curve"][-1]["value"], whole["predicted"]
    horizon = f"{study.task.cuts[-1]:g} {study.task.time_unit}"
    top = min(1.0, 1.1 * max([*predicted, *high, 0.01]))

    def draw(figure: Figure) -> None:
        axes: Axes = figure.subplots()
        axes.plot([0, top], [0, top], color=GREY, ls="--", lw=1, label="perfect")
        reach = np.array([[o - a, b - o] for o, a, b in zip(observed, low, high, strict=True)]).T
        axes.errorbar(
            predicted, observed, np.maximum(reach, 0.0), fmt="o", ms=5, color=BLUE,
            label="a tenth of patients",
        )  # fmt: skip
        axes.set(
            xlabel=f"predicted risk by {horizon}",
            ylabel=f"observed risk by {horizon} (Kaplan-Meier)",
            xlim=(0, top),
            ylim=(0, top),
            aspect="equal",
        )
        axes.legend(loc="upper left")

    return Chart(
        name="survival-calibration",
        title="Can its risks be believed?",
        alt=f"By {horizon} {number(seen)} had the event and {number(said)} were predicted.",
        caption="Points above the dashed line: the model says too little; below: too much. Who was "
        "lost is allowed for. "
        f"In all, by {horizon}, observed {percent(seen, 1)}, predicted {percent(said, 1)}.",
        drawing=picture("survival-calibration", draw, height=4.3),
        table=Table(
            headings=("mean predicted", "observed", "95 % interval", "patients"),
            rows=tuple(
                (number(p), number(o), between(a, b), f"{g['patients']:.0f}")
                for p, o, a, b, g in zip(predicted, observed, low, high, groups, strict=True)
            ),
        ),
    )


def _by_interval(study: Study, found: JsonRecord, validation: JsonRecord | None) -> Chart:
    """Return how well each interval's events are told apart, here and by the sums over sites."""
    task = study.task
    ends = (task.start, *task.cuts)
    names = [f"{a:g} to {b:g}" for a, b in pairwise(ends)]
    both = [("test patients", found, BLUE)]
    if validation is not None:
        both.append(("validation patients, by sums over the sites", validation, ORANGE))

    def draw(figure: Figure) -> None:
        axes: Axes = figure.subplots()
        for what, one, colour in both:
            known = [(k, a) for k, a in enumerate(one["aucs"]) if a is not None]
            label = f"{what}: C-index {one['c_index']['value']:.3f}"
            axes.plot([k for k, _ in known], [a for _, a in known], "o-", color=colour, label=label)
        axes.axhline(0.5, color=GREY, ls="--", lw=1)
        axes.set_xticks(range(len(names)), names)
        axes.set(xlabel=f"interval ({task.time_unit})", ylabel="AUC of the interval", ylim=(0, 1))
        axes.legend(loc="lower left")

    return Chart(
        name="survival-intervals",
        title="Early and late",
        alt="; ".join(f"{what}: C-index {one['c_index']['value']:.3f}" for what, one, _ in both)
        + ".",
        caption="For each interval: of one who had the event in it and one who lived through it, "
        "how often the first had the higher risk. The C-index is the mean, weighted by pairs.",
        drawing=picture("survival-intervals", draw, height=3.6),
        table=Table(
            headings=("interval", *(what for what, _, _ in both)),
            rows=tuple(
                (name, *(number(one["aucs"][k]) for _, one, _ in both))
                for k, name in enumerate(names)
            ),
        ),
    )


def _validation(record: JsonRecord) -> JsonRecord | None:
    last = [r for r in record.get("other_rounds") or () if r["purpose"] == "evaluation"]
    found = [r["validation"] for r in last if r.get("validation")]
    return found[-1].get("survival") if found else None
