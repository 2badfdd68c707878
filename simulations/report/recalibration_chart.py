"""The chart of recalibration: observed / expected outcomes before and after it, by group."""

from matplotlib.figure import Figure

from consilium.shared.files.json_record import JsonRecord
from consilium.simulations.experiments.recalibrating import neutral, recalibration_sentences
from consilium.simulations.report.drawing import BLUE, GREEN, GREY, Chart, Table, picture
from consilium.simulations.report.forest_plots import mark, ratio_axis, share_text
from consilium.simulations.report.groups import share_of
from consilium.simulations.report.round_charts import name_rows

_WAYS = (
    ("before", "as it is", GREY),
    ("across", "recalibrated across sites", BLUE),
    ("own", "recalibrated at each hospital", GREEN),
)
_MOST_ROWS = 30


def recalibration_chart(record: JsonRecord) -> list[Chart]:
    """Return the forest plot of ratios; none if no recalibration could be fitted."""
    found = record.get("recalibration")
    if not found:
        return []
    groups = [g for g in found["groups"] if g["kind"] != "subgroup"][:_MOST_ROWS]
    ways = [
        way
        for way in _WAYS
        if any(g[way[0]] for g in groups)
        and not (way[0] == "across" and neutral(found["across"] or []))
    ]
    if not groups or len(ways) < 2:
        return []
    sentences = recalibration_sentences(record)

    def draw(figure: Figure) -> None:
        axes, untold = figure.subplots(), {title for _, title, _ in ways}
        ratio_axis(axes, [share for g in groups for way, *_ in ways if (share := share_of(g[way]))])
        for row, group in enumerate(groups):
            for place, (way, title, colour) in enumerate(ways):
                offset = 0.26 * (place - (len(ways) - 1) / 2)
                share = share_of(group[way])
                label = title if share and title in untold else None
                untold -= {label}
                mark(axes, row + offset, share, colour, label)
        name_rows(axes, [g["name"] for g in groups])
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=3)

    own = sum(site["patients"] for site in found["sites"])
    fitted = f" Each hospital fitted on its own: {own:.0f} in all." if found["sites"] else ""
    return [
        Chart(
            name="recalibration",
            title="Does recalibration mend its risks?",
            alt=" ".join(sentences),
            caption="On test patients: outcomes observed over expected, 1 is perfect. Fitted on "
            f"validation patients, who neither trained nor are tested here.{fitted} "
            f"{' '.join(sentences)}",
            drawing=picture("recalibration", draw, height=1.6 + 0.46 * len(groups)),
            table=Table(
                headings=("group", *(title for _, title, _ in ways)),
                rows=tuple(
                    (g["name"], *(share_text(share_of(g[way])) for way, *_ in ways)) for g in groups
                ),
            ),
        )
    ]
