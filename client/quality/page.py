"""The quality report as one HTML file with figures, for a person at the hospital.

The file is self-contained: no script, no font, no external address. It shows counts, shares and
distributions of this hospital's data, and is meant to stay in the hospital.
"""

import base64
import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from consilium.client.quality.finding import Finding
from consilium.client.quality.findings import Verdict
from consilium.client.quality.funnel import HEADINGS, funnels
from consilium.client.quality.measure import Quality, quantiles
from consilium.client.sources.common.door import units_line
from consilium.shared.export.manifest import output_names
from consilium.shared.model.normalisation import CLIP
from consilium.shared.service.pages import render_page
from consilium.shared.study.definition import Study

_BLUE, _GREY, _INK = "#2f6690", "#c9ced6", "#222831"
_COLOURS = {"ready": "#2e7d4f", "ready with warnings": "#a86a00", "not ready": "#b3261e"}
_WORDS = {"stops": "stops training", "warns": "warning", "tells": "note"}
_PACKAGE = "consilium.client.quality"


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """A figure of the page: its caption, and its SVG as a ``data:`` URL."""

    caption: str
    svg_base64: str


def quality_page(
    quality: Quality, findings: tuple[Finding, ...], verdict: Verdict, study: Study
) -> str:
    """Return the whole page."""
    names = list(study.variables)
    facts = [
        ("patients", f"{quality.patients}"),
        ("stays" if study.data.fixed else "windows", f"{quality.stays}"),
        ("measurements used", f"{quality.read.events}"),
        *_label_facts(quality, study),
    ]
    figures = (
        _figure(
            "How much of each variable is there: share of stays in which it was ever measured.",
            lambda axes: _presence(axes, quality, names),
            height=0.24 * len(names) + 0.9,
        ),
        _figure(
            "When it is measured: share of the stays still observed, by hour since the start "
            "of the window.",
            lambda axes: _over_time(axes, quality, study),
            height=0.24 * len(names) + 1.2,
        ),
        _figure(
            "Where this hospital's values lie against the study's reference (0 is its center, 1 "
            "its spread): bars from the 5th to the 95th percentile, the median marked.",
            lambda axes: _drift(axes, quality, names),
            height=0.24 * len(names) + 0.9,
        ),
    )
    return render_page(
        _PACKAGE,
        "quality.html",
        study=study,
        verdict=verdict,
        colour=_COLOURS[verdict],
        facts=facts,
        findings=findings,
        words=_WORDS,
        figures=figures,
        headings=HEADINGS,
        funnels=[
            funnel
            for funnel in funnels(quality.read, study)
            if funnel.found and quality.read.counts_rows
        ],
        units=units_line(quality.read.unknown_units),
    )


def _label_facts(quality: Quality, study: Study) -> list[tuple[str, str]]:
    label = study.data.label
    if study.task.kind == "binary":
        return [
            (f"share with {label}", f"{100 * quality.label_mean:.1f} %"),
            (f"patients with {label}", f"{quality.outcome_patients[1]}"),
        ]
    if study.task.kind == "multiclass":
        shown = ", ".join(map(str, quality.outcome_patients))
        return [(f"patients by class of {label}", shown)]
    if study.task.kind in ("multilabel", "survival"):
        patients = zip(output_names(study), quality.outcome_patients, strict=True)
        return [(f"patients with {name}", f"{number}") for name, number in patients]
    return [(f"mean of {label}", f"{quality.label_mean:.3g}")]


def _figure(caption: str, draw: Callable[[Axes], None], *, height: float) -> Drawn:
    figure = Figure(figsize=(8.5, height), layout="constrained")
    draw(figure.subplots())
    content = io.BytesIO()
    figure.savefig(content, format="svg", metadata={"Date": None})
    return Drawn(caption=caption, svg_base64=base64.b64encode(content.getvalue()).decode())


def _rows(axes: Axes, names: list[str]) -> None:
    """Set up axes with one row per variable, the first on top, and a light frame."""
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.tick_params(axis="y", length=0)


def _presence(axes: Axes, quality: Quality, names: list[str]) -> None:
    percent_V = 100 * quality.present_V
    axes.barh(range(len(names)), np.full(len(names), 100), color=_GREY, height=0.6)
    axes.barh(range(len(names)), percent_V, color=_BLUE, height=0.6)
    for row, percent in enumerate(percent_V):
        axes.text(101, row, f"{percent:.0f} %", va="center", fontsize=8, color=_INK)
    axes.set_xlim(0, 108)
    axes.set_xlabel("stays with a measurement (%)")
    _rows(axes, names)


def _over_time(axes: Axes, quality: Quality, study: Study) -> None:
    series = [i for i, v in enumerate(study.variables.values()) if v.role == "series"]
    steps, step_h = quality.measured_VT.shape[1], study.data.step_h
    shown = axes.imshow(
        100 * quality.measured_VT[series],
        aspect="auto",
        cmap="Blues",
        vmin=0,
        vmax=100,
        extent=(0, steps * step_h, len(series) - 0.5, -0.5),
        interpolation="nearest",
    )
    names = list(study.variables)
    axes.set_yticks(range(len(series)), [names[index] for index in series])
    axes.set_xlabel("hours since the start of the window")
    axes.figure.colorbar(shown, ax=axes, label="measured in the step (%)", shrink=0.8)


def _drift(axes: Axes, quality: Quality, names: list[str]) -> None:
    axes.axvspan(-1, 1, color="#eef1f5", zorder=0)
    axes.axvline(0, color=_GREY, linewidth=1, zorder=1)
    for row, histogram_B in enumerate(quality.histogram_VB):
        low, quarter, median, other, high = quantiles(histogram_B, (0.05, 0.25, 0.5, 0.75, 0.95))
        axes.plot([low, high], [row, row], color=_BLUE, linewidth=1.5, zorder=2)
        axes.plot([quarter, other], [row, row], color=_BLUE, linewidth=5, zorder=3)
        axes.plot([median], [row], "|", color=_INK, markersize=9, markeredgewidth=1.5, zorder=4)
    axes.set_xlim(-CLIP, CLIP)
    axes.set_xlabel("reference deviations from the study's center")
    _rows(axes, names)
