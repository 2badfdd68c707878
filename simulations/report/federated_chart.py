"""The chart of the federation's last evaluation, from secure sums over validation patients.

In a federation of real hospitals nothing else is known; in a simulation the chart also shows the
researcher's own test patients.
"""

from typing import Any

from matplotlib.figure import Figure

from consilium.shared.figures.risk_curves import Share
from consilium.shared.files.json_record import JsonRecord
from consilium.shared.study.definition import Study
from consilium.simulations.report.drawing import Chart, Table, picture
from consilium.simulations.report.forest_plots import Row, draw_rows, share_text
from consilium.simulations.report.groups import share_of

_USEFUL = 0.1  # a larger bound on the effect of bins is useless, and the caption says so


def federated_chart(study: Study, record: JsonRecord) -> list[Chart]:
    """Return the chart of AUROCs, of each output and released group; none without an evaluation."""
    validated = [r["validation"] for r in record["other_rounds"] if r.get("validation")]
    if not validated or not validated[-1]["outputs"]:
        return []
    last = validated[-1]
    rows = _outputs(study, last["outputs"]) + _groups(last)
    errors = [f"{output['auroc_error']:.4f}" if output else "–" for output in last["outputs"]]
    bins = max((output["auroc_error"] for output in last["outputs"] if output), default=0.0)
    binning = f"Counting in bins moves it by at most {bins:.4f}."
    if bins > _USEFUL:
        binning = "Under this noise the effect of counting in bins has no useful bound."
    test = share_of(record["test"]["auroc"])
    rows.append(Row(name="test patients, directly", share=test))

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        draw_rows(axes, rows)
        axes.set_xlabel("AUROC, 95 % interval")

    return [
        Chart(
            name="federated",
            title="What the federation itself saw",
            alt="; ".join(f"{row.name}: {share_text(row.share)}" for row in rows) + ".",
            caption=f"Blue: about {last['patients']:.0f} validation patients of the sites, from "
            f"sums of counts over the sites; intervals hold the privacy noise. {binning} Grey: the "
            "test patients above, who are others.",
            drawing=picture("federated", draw, height=1.2 + 0.34 * len(rows)),
            table=Table(
                headings=("whose", "AUROC", "effect of bins, at most"),
                rows=tuple(
                    (row.name, share_text(row.share), error)
                    for row, error in zip(
                        rows, errors + ["–"] * (len(rows) - len(errors)), strict=True
                    )
                ),
            ),
        )
    ]


def _outputs(study: Study, outputs: list[Any]) -> list[Row]:
    label = "class" if study.task.kind == "multiclass" else "label"
    names = study.data.label.split("+")
    if len(names) != len(outputs):
        names = [f"{label} {number}" for number in range(len(outputs))]
    if len(outputs) == 1:
        names = ["validation patients, by sums over the sites"]
    return [
        Row(name=name, share=_share(output), strong=True)
        for name, output in zip(names, outputs, strict=True)
    ]


def _groups(validation: JsonRecord) -> list[Row]:
    """Return rows of the groups of validation patients that the sites' policies release."""
    return [
        Row(name=group["name"], share=share_of((group["figures"] or {}).get("auroc")), strong=True)
        for group in validation.get("groups") or ()
        if group.get("released") and group["kind"] != "all"
    ]


def _share(output: JsonRecord | None) -> Share | None:
    if output is None or output["auroc"] is None:
        return None
    return Share(value=output["auroc"], low=output["auroc_low"], high=output["auroc_high"])
