"""How much better each setting of a comparison is than the models without recurrence."""

from matplotlib.figure import Figure

from consilium.shared.files.json_record import JsonRecord
from consilium.shared.study.definition import Study
from consilium.simulations.experiments.rivals import AGAINST, standing
from consilium.simulations.figures.measures import FIGURES, TITLES
from consilium.simulations.report.drawing import GREY, Chart, Table, picture
from consilium.simulations.report.forest_plots import (
    Row,
    draw_rows,
    setting_title,
    share_text,
)
from consilium.simulations.report.groups import share_of


def rivals_chart(study: Study, settings: JsonRecord) -> list[Chart]:
    """Return a forest plot of differences; none for a comparison that has none.

    Args:
        study: what was compared.
        settings: of ``compare.json``.
    """
    figures = FIGURES[study.task.kind]
    pairs = [
        (key, rival, gains)
        for key, record in settings.items()
        for rival, gains in record.get(AGAINST, {}).items()
    ]
    if not pairs:
        return []
    name = figures[0]
    rows = [
        Row(
            name=f"{setting_title(key, settings[key])}, over {rival.replace('-', ' ')}",
            share=share_of(gains[name]),
            strong=key.startswith("federated"),
        )
        for key, rival, gains in pairs
    ]

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.axvline(0, color=GREY, ls="--", lw=1)
        draw_rows(axes, rows)
        axes.set_xlabel(f"better by, {TITLES[name]}, 95 % interval")

    return [
        Chart(
            name="rivals",
            title="Better than a model without recurrence?",
            alt="; ".join(f"{row.name}: {share_text(row.share)}" for row in rows) + ".",
            caption=f"How much better each setting's {TITLES[name]} is than that of a simple model "
            "on the same test patients. The interval is of the same resamples of patients for both "
            "(paired bootstrap); if it holds 0, there is no difference beyond noise.",
            drawing=picture("rivals", draw, height=1.2 + 0.34 * len(rows)),
            table=Table(
                headings=(
                    "setting",
                    "over",
                    *(f"{TITLES[figure]}, better by" for figure in figures),
                    f"by {TITLES[name]}",
                ),
                rows=tuple(
                    (
                        setting_title(key, settings[key]),
                        rival.replace("-", " "),
                        *(share_text(share_of(gains[figure])) for figure in figures),
                        standing(gains[name]),
                    )
                    for key, rival, gains in pairs
                ),
            ),
        )
    ]
