"""Each output of a model with several, as the sites' own validation patients judge it."""

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure

from shared.risk_curves import Share
from shared.study import Study
from simulations.report.drawing import Chart, Table, picture
from simulations.report.forests import Row, draw_rows, told_share


def output_chart(study: Study, record: Mapping[str, Any]) -> list[Chart]:
    """Return the AUROC of each output from the last evaluation; none without several outputs."""
    validated = [r["validation"] for r in record["other_rounds"] if r.get("validation")]
    if not validated or len(outputs := validated[-1]["outputs"]) < 2:
        return []
    label = "class" if study.task.kind == "multiclass" else "label"
    names = study.data.label.split("+")
    if len(names) != len(outputs):
        names = [f"{label} {number}" for number in range(len(outputs))]
    rows = [
        Row(name=name, share=_share(output), strong=True)
        for name, output in zip(names, outputs, strict=True)
    ]

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        draw_rows(axes, rows)
        axes.set_xlabel("AUROC, 95 % interval")

    return [
        Chart(
            name="outputs",
            title=f"Each {label} by itself",
            alt="; ".join(f"{row.name}: {told_share(row.share)}" for row in rows) + ".",
            caption="On the sites' validation patients, from secure sums of counts; the intervals "
            "hold privacy noise, not the small effect of bins.",
            svg=picture("outputs", draw, height=1.2 + 0.34 * len(rows)),
            table=Table(
                headings=(label, "AUROC", "effect of bins, at most"),
                rows=tuple(
                    (
                        row.name,
                        told_share(row.share),
                        f"{output['auroc_error']:.4f}" if output else "–",
                    )
                    for row, output in zip(rows, outputs, strict=True)
                ),
            ),
        )
    ]


def _share(output: Mapping[str, Any] | None) -> Share | None:
    if output is None or output["auroc"] is None:
        return None
    return Share(value=output["auroc"], low=output["auroc_low"], high=output["auroc_high"])
