"""The chart of the variables a model relies on, from the federation's own sums."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from consilium.shared.figures.score_counts import NORMAL_95
from consilium.shared.files.json_record import JsonRecord
from consilium.shared.rounds.attribution_bands import LARGEST_EFFECT, band_starts
from consilium.shared.study.definition import Study
from consilium.simulations.report.drawing import BLUE, INK, PALE, Chart, Table, number, picture

_SHADES = (PALE, "#9dbfdd", "#5a93c4", BLUE)  # later is darker
_MOST_ROWS = 15


def attributions_chart(study: Study, record: JsonRecord) -> list[Chart]:
    """Return a chart with a bar for each variable, by time; none if the study did not ask."""
    found = attributions_of(record)
    if found is None:
        return []
    mean_VA, bands = np.array(list(found["effects"].values())), _band_names(study)
    reach = NORMAL_95 * found["deviation"] * np.sqrt(mean_VA.shape[1])
    if reach:  # with privacy noise, a bar's parts would be mostly noise
        mean_VA, bands = mean_VA.sum(axis=1, keepdims=True), ["together"]
    total_V = np.maximum(mean_VA, 0.0).sum(axis=1)
    order = np.argsort(-total_V, kind="stable")[:_MOST_ROWS]
    names = [list(found["effects"])[v] for v in order]
    unit = "target's unit" if study.task.kind == "regression" else "log-odds"

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        left = np.zeros(len(order))
        for band, name in enumerate(bands):
            width = np.maximum(mean_VA[order, band], 0.0)
            colour = _SHADES[len(_SHADES) - len(bands) + band] if len(bands) > 1 else BLUE
            axes.barh(range(len(order)), width, left=left, color=colour, height=0.7, label=name)
            left += width
        if reach:
            axes.errorbar(left, range(len(order)), xerr=reach, fmt="none", ecolor=INK, lw=1)
        axes.set_yticks(range(len(order)), names)
        axes.set_ylim(len(order) - 0.4, -0.6)
        axes.set_xlim(left=0)
        axes.set_xlabel(f"mean absolute attribution, {unit}")
        if len(bands) > 1:
            axes.legend(loc="lower right")

    noise = " Lines: 95 % of the privacy noise; what is within it may be nothing." if reach else ""
    clipped = 100 * min(max(found["clipped"], 0.0) / found["patients"], 1.0)
    return [
        Chart(
            name="attributions",
            title="What does the model look at?",
            alt="; ".join(f"{name}: {total_V[v]:.3f}" for name, v in zip(names, order, strict=True))
            + f" ({unit}).",
            caption="Integrated gradients from a stay in which nothing was measured, absolute, by "
            + ("variable" if reach else "variable and time")
            + f", averaged over about {found['patients']:.0f} validation patients "
            "by a sum over the sites; no patient's attributions are in it. Long bars are what "
            "this model uses, not what causes the outcome, and not what to treat: of variables "
            "that move together it may use either, and a value counts in every step that it is "
            "carried to. Bars say neither in which direction, nor whether it is right. A "
            f"patient's effects are counted up to {LARGEST_EFFECT:g} "
            f"{'spreads' if study.task.kind == 'regression' else 'log-odds'} together, beyond "
            f"which {clipped:.0f} % were.{noise}",
            drawing=picture("attributions", draw, height=1.2 + 0.3 * len(order)),
            table=Table(
                headings=("variable", *(bands if len(bands) > 1 else ()), "together"),
                rows=tuple(
                    (
                        name,
                        *(number(m) for m in (mean_VA[v] if len(bands) > 1 else ())),
                        number(float(mean_VA[v].sum())),
                    )
                    for name, v in zip(names, order, strict=True)
                ),
            ),
        )
    ]


def attributions_of(record: JsonRecord) -> Mapping[str, Any] | None:
    """Return the attributions of the last evaluation, if it has any."""
    validated = [r["validation"] for r in record["other_rounds"] if r.get("validation")]
    return validated[-1].get("attributions") if validated else None


def _band_names(study: Study) -> list[str]:
    data, starts = study.data, band_starts(study)
    ends = (*starts[1:], data.steps)
    unit = "hours" if data.clock == "hour" else "places"
    return [
        f"{unit} {start * data.step_h} to {min(end * data.step_h, data.window_h)}"
        for start, end in zip(starts, ends, strict=True)
    ]
