"""Charts of predictions that are not risks: of classes, and of predicted values."""

from typing import Any

import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from consilium.shared.figures.risk_curves import wilson
from consilium.shared.study.definition import Study
from consilium.simulations.report.drawing import (
    BLUE,
    GREY,
    INK,
    ORANGE,
    Chart,
    Table,
    between,
    interval,
    number,
    percent,
    picture,
)

_BLUES = LinearSegmentedColormap.from_list("blues", ("#ffffff", BLUE))
_LEGIBLE = 10  # up to so many classes, each cell shows its share as text
_TARGETS = 4


def answer_charts(study: Study, tables: dict[str, Any]) -> list[Chart]:
    """Return the charts of ``final_tables`` in ``run.json``, if it has any."""
    charts = [_confusion(tables["confusion"])] if "confusion" in tables else []
    values = tables.get("values", [])[:_TARGETS]
    names = [f"target {number + 1}" for number in range(len(values))]
    if len(values) == 1:
        names = [study.data.label]
    return [
        *charts,
        *(
            _values(value, name, i)
            for i, (value, name) in enumerate(zip(values, names, strict=True))
        ),
    ]


def _confusion(table: list[list[int]]) -> Chart:
    table_KK = np.array(table)
    total_K = table_KK.sum(axis=1)
    share_KK = table_KK / np.maximum(total_K[:, None], 1)
    classes = range(len(table_KK))
    found = {k: wilson(float(table_KK[k, k]), float(total_K[k])) for k in classes if total_K[k]}

    def draw(figure: Figure) -> None:
        left, right = figure.subplots(1, 2, width_ratios=(1.1, 1))
        left.pcolormesh(share_KK, cmap=_BLUES, vmin=0, vmax=1)
        left.set_aspect("equal")
        left.invert_yaxis()
        left.grid(visible=False)
        if len(table_KK) <= _LEGIBLE:
            for (row, column), share in np.ndenumerate(share_KK):
                left.text(column + 0.5, row + 0.5, f"{share:.2f}", ha="center", va="center",
                          color="white" if share > 0.5 else INK)  # fmt: skip
            left.set_xticks([k + 0.5 for k in classes], classes)
            left.set_yticks([k + 0.5 for k in classes], classes)
        left.set(title="share of each class", xlabel="taken for class", ylabel="true class")
        for k, share in found.items():
            interval(right, share, k, BLUE)
        right.set_yticks(list(found), [f"class {k} (n = {total_K[k]})" for k in found])
        right.set_ylim(len(table_KK) - 0.5, -0.5)
        right.set(title="recognised", xlim=(-0.02, 1.02), xlabel="sensitivity, 95 % interval")

    worst = min(found, key=lambda k: found[k].value)
    return Chart(
        name="confusion",
        title="Which class is taken for which?",
        alt="; ".join(f"class {k}: {percent(s.value)} recognised" for k, s in found.items()) + ".",
        caption="Left: of each true class, the share taken for each class. Right: the share of "
        f"each class that is recognised. The worst is class {worst}, of which "
        f"{percent(found[worst].value)} is recognised.",
        drawing=picture("confusion", draw, height=max(3.2, 0.28 * len(table_KK) + 1.2)),
        table=Table(
            headings=("true class", *(f"taken for {k}" for k in classes)),
            rows=tuple((f"class {k}", *map(str, table[k])) for k in classes),
        ),
    )


def _values(value: dict[str, Any], name: str, index: int) -> Chart:
    counts_BB = np.array([[int(n) for n in row.split()] for row in value["counts"]])
    low, high, groups = value["low"], value["high"], value["groups"]

    def draw(figure: Figure) -> None:
        left, right = figure.subplots(1, 2)
        edges_L = np.linspace(low, high, len(counts_BB) + 1)
        left.pcolormesh(edges_L, edges_L, np.ma.masked_equal(counts_BB, 0), cmap=_BLUES, vmin=0)
        left.set(title="how often", xlabel="predicted", ylabel="true", aspect="equal")
        predicted = [g["predicted"] for g in groups]
        right.vlines(predicted, [g["low"] for g in groups], [g["high"] for g in groups],
                     color=BLUE, alpha=0.4, lw=4, label="middle 80 % of true values")  # fmt: skip
        right.plot(predicted, [g["observed"] for g in groups], "o", color=BLUE, label="their mean")
        right.set(title="tenths by predicted value", xlabel="mean predicted", ylabel="true")
        ends = (min(predicted), max(predicted))
        for axes, span in ((left, (low, high)), (right, ends)):
            axes.plot(span, span, color=ORANGE if axes is left else GREY, ls="--", lw=1.2)
        right.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2)

    return Chart(
        name=f"values-{index}",
        title=f"Predicted against true: {name}",
        alt=f"Means of tenths by predicted value: from {number(groups[0]['predicted'], 2)} "
        f"predicted and {number(groups[0]['observed'], 2)} true to "
        f"{number(groups[-1]['predicted'], 2)} predicted and "
        f"{number(groups[-1]['observed'], 2)} true.",
        caption="Dashed: perfect. Left: the darker, the more known outcomes "
        f"(darkest {counts_BB.max()}); the edge cells hold all beyond. Right: a slope flatter "
        "than the line means that predictions differ more than the truth, a steeper one that they "
        "differ less.",
        drawing=picture(f"values-{index}", draw, height=3.3),
        table=Table(
            headings=("mean predicted", "mean true", "middle 80 % of true", "rows"),
            rows=tuple(
                (
                    number(g["predicted"]),
                    number(g["observed"]),
                    between(g["low"], g["high"], 2),
                    str(g["rows"]),
                )
                for g in groups
            ),
        ),
    )
