"""Forest plots: hospitals and subgroups, what joining gained, and settings of a comparison."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from consilium.shared.figures.risk_curves import Share
from consilium.shared.files.json_record import JsonRecord
from consilium.shared.study.definition import Study
from consilium.simulations.figures.measures import FIGURES, TITLES
from consilium.simulations.report.drawing import (
    BLUE,
    GREY,
    ORANGE,
    Chart,
    Table,
    between,
    interval,
    number,
    picture,
    plain_ticks,
)
from consilium.simulations.report.groups import Group, share_of
from consilium.simulations.report.round_charts import name_rows

SETTINGS = {
    "logistic-regression": "logistic regression on summaries",
    "logistic-hazard-regression": "logistic regression of the hazards on summaries",
    "ridge-regression": "ridge regression on summaries",
    "gradient-boosting": "gradient boosting on summaries",
    "local": "each site alone, mean",
    "pooled": "all records in one place",
    "federated": "federated, no privacy",
    "federated-private": "federated, private",
}
_MOST_ROWS = 40
_RATIOS = (0.33, 0.5, 0.67, 0.8, 1, 1.25, 1.5, 2, 3)
_FAR_RATIOS = (0.0625, 0.125, 0.25, 0.5, 1, 2, 4, 8, 16)


@dataclass(frozen=True, kw_only=True)
class Row:
    """A named estimate; ``strong`` and ``serious`` rows each have a colour of their own."""

    name: str
    share: Share | None
    strong: bool = False
    serious: bool = False

    @property
    def colour(self) -> str:
        """The colour it is drawn in."""
        return ORANGE if self.serious else BLUE if self.strong else GREY


def group_charts(
    study: Study, groups: tuple[Group, ...], verdicts: Sequence[Mapping[str, Any]] = ()
) -> list[Chart]:
    """Return a forest plot of hospitals and one of subgroups, if there are any.

    The figures that serious ``verdicts`` of ``run.json`` name are drawn in another colour.
    """
    serious = {(v["topic"], v["kind"], v["name"]) for v in verdicts if v["serious"]}
    charts = []
    for kind, name, title in (
        ("site", "sites", "Is it as good at every hospital?"),
        ("subgroup", "subgroups", "Is it as good for everybody?"),
    ):
        chosen = [g for g in groups if g.kind == kind][:_MOST_ROWS]
        if chosen:
            whole = [g for g in groups if g.kind == "all"]
            charts.append(_of_groups(study, [*whole, *chosen], name, title, serious))
    return charts


def joining_chart(joining: JsonRecord) -> list[Chart]:
    """Return the chart of what hospitals gained by joining; none if none can be judged."""
    figure_name = TITLES[joining["figure"]]
    sites = [
        site for site in joining["sites"] if share_of(site["gain"]) and site.get("judged", True)
    ]
    few = ", ".join(site["site"] for site in joining["sites"] if not site.get("judged", True))
    if not sites:
        return []
    sites = sites[:_MOST_ROWS]
    better = "higher" if joining["higher_is_better"] else "lower"

    def draw(figure: Figure) -> None:
        left, right = figure.subplots(1, 2, sharey=True)
        for offset, key, colour, label in (
            (-0.15, "local", ORANGE, "its own model"),
            (0.15, "federated", BLUE, "the federated model"),
        ):
            for row, site in enumerate(sites):
                mark(left, row + offset, share_of(site[key]), colour, label if not row else None)
        left.set_title(f"{figure_name} ({better} is better)")
        left.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2)
        right.axvline(0, color=GREY, ls="--", lw=1)
        for row, site in enumerate(sites):
            mark(right, row, share_of(site["gain"]), BLUE)
        right.set_title("gain by joining")
        for axes in (left, right):
            name_rows(axes, [f"{site['site']} (n = {site['patients']})" for site in sites])

    gains = [(site["site"], share_of(site["gain"])) for site in sites]
    sure = [name for name, gain in gains if gain and gain.low > 0]
    lost = [name for name, gain in gains if gain and gain.high < 0]
    summary = (
        f"{len(sure)} of {len(sites)} hospitals surely gained"
        + (f"; {', '.join(lost)} surely lost" if lost else "; none surely lost")
        + " (95 % interval beyond 0)."
    )
    chart = Chart(
        name="joining",
        title="Did hospitals gain by joining?",
        alt=summary,
        caption="On each hospital's own test patients, beside a model that the hospital trained "
        f"alone without privacy. {summary}"
        + (f" Too few patients to judge: {few}." if few else ""),
        drawing=picture("joining", draw, height=1.7 + 0.42 * len(sites)),
        table=Table(
            headings=("hospital", "patients", "alone", "federated", "gain"),
            rows=tuple(
                (
                    site["site"],
                    str(site["patients"]),
                    *(share_text(share_of(site[key])) for key in ("local", "federated", "gain")),
                )
                for site in sites
            ),
        ),
    )
    return [chart]


def settings_chart(study: Study, settings: Mapping[str, Mapping[str, Any]]) -> Chart:
    """Return all settings of ``compare.json`` in one forest plot."""
    name = FIGURES[study.task.kind][0]
    rows = [
        Row(
            name=setting_title(key, record),
            share=share_of(record["test"][name]),
            strong=key.startswith("federated"),
        )
        for key, record in settings.items()
    ]

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        draw_rows(axes, rows)
        axes.set_xlabel(f"{TITLES[name]}, 95 % interval")

    return Chart(
        name="settings",
        title="Beside simpler and rival ways",
        alt="; ".join(f"{row.name}: {share_text(row.share)}" for row in rows) + ".",
        caption=f"{TITLES[name]} of each setting on the same test patients, from compare.json. "
        "Intervals may overlap where one setting is surely better, because all are judged on the "
        "same patients. Privacy noise was drawn anew for it.",
        drawing=picture("settings", draw, height=1.2 + 0.34 * len(rows)),
        table=Table(
            headings=("setting", *(TITLES[n] for n in FIGURES[study.task.kind])),
            rows=tuple(
                (
                    setting_title(key, record),
                    *(share_text(share_of(record["test"][n])) for n in FIGURES[study.task.kind]),
                )
                for key, record in settings.items()
            ),
        ),
    )


def setting_title(key: str, record: JsonRecord) -> str:
    """Return the title of a comparison's setting, for people to read."""
    base, _, _ = key.partition("-epsilon-")
    title = SETTINGS.get(base, base.replace("-", " "))
    epsilon = record["privacy"]["epsilon"]
    return title if epsilon is None else f"{title}, epsilon {epsilon:.2g}"


def share_text(share: Share | None) -> str:
    """Return a value with its interval, as text."""
    return "–" if share is None else f"{number(share.value)} ({between(share.low, share.high)})"


def _of_groups(
    study: Study,
    groups: Sequence[Group],
    name: str,
    title: str,
    serious: Collection[tuple[str, str, str]],
) -> Chart:
    key = FIGURES[study.task.kind][0]
    labels = [f"{g.name} (n = {g.patients})" for g in groups]
    calibrated = any(g.calibration for g in groups)
    rows = [
        Row(
            name=label,
            share=g.figures.get(key),
            strong=g.kind == "all",
            serious=("discrimination", g.kind, g.name) in serious,
        )
        for label, g in zip(labels, groups, strict=True)
    ]

    def draw(figure: Figure) -> None:
        both = figure.subplots(1, 2, sharey=True) if calibrated else [figure.subplots()]
        draw_rows(both[0], rows)
        both[0].set_xlabel(f"{TITLES[key]}, 95 % interval")
        if rows[0].share:
            both[0].axvline(rows[0].share.value, color=GREY, ls="--", lw=1)
        if calibrated:
            ratios = [
                Row(
                    name=row.name,
                    share=g.calibration if g.figures else None,
                    strong=row.strong,
                    serious=("calibration", g.kind, g.name) in serious,
                )
                for row, g in zip(rows, groups, strict=True)
            ]
            ratio_axis(both[1], [row.share for row in ratios if row.share])
            draw_rows(both[1], ratios)

    unjudged = [g.name for g in groups if not g.figures]
    return Chart(
        name=name,
        title=title,
        alt="; ".join(f"{row.name}: {share_text(row.share)}" for row in rows) + ".",
        caption=f"{'Left: ' if calibrated else ''}{TITLES[key]}; dashed: all test patients. "
        + (
            "Right: outcomes observed over expected; above 1 the model says too little. "
            if calibrated
            else ""
        )
        + (
            "Orange: a finding of the summary. "
            if any(g.name in {n for *_, n in serious} for g in groups)
            else ""
        )
        + (f"Too few patients to judge: {', '.join(unjudged)}." if unjudged else ""),
        drawing=picture(name, draw, height=1.2 + 0.34 * len(groups)),
        table=Table(
            headings=("group", "patients", "with outcome", TITLES[key], "observed / expected"),
            rows=tuple(
                (
                    g.name,
                    str(g.patients),
                    "–" if g.positives is None else f"{g.positives:.0f}",
                    share_text(g.figures.get(key)),
                    share_text(g.calibration),
                )
                for g in groups
            ),
        ),
    )


def draw_rows(axes: Axes, rows: Sequence[Row]) -> None:
    """Draw a row for each estimate, the first on top."""
    for index, row in enumerate(rows):
        mark(axes, index, row.share, row.colour)
    name_rows(axes, [row.name for row in rows])


def ratio_axis(axes: Axes, shares: Sequence[Share]) -> None:
    """Make the horizontal axis one of observed / expected outcomes, wide enough for these."""
    drawn = list(shares) or [Share(value=1, low=1, high=1)]
    axes.set_xscale("log")
    axes.axvline(1, color=GREY, ls="--", lw=1)
    low = min(0.75, 0.95 * min(s.low for s in drawn))
    axes.set_xlim(max(low, 0.05), max(1.33, 1.05 * max(s.high for s in drawn)))
    ends = axes.get_xlim()
    axes.minorticks_off()
    plain_ticks(axes.xaxis, _RATIOS if ends[1] < 6 * ends[0] else _FAR_RATIOS)
    axes.set_xlabel("observed / expected outcomes")


def mark(
    axes: Axes, row: float, share: Share | None, colour: str, label: str | None = None
) -> None:
    """Draw an estimate in a row, or say that it was not judged."""
    if share is None:
        axes.text(0.02, row, "not judged", transform=axes.get_yaxis_transform(), va="center",
                  color=GREY)  # fmt: skip
        return
    interval(axes, share, row, colour, label)
