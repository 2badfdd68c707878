"""The chart of models at hospitals they never saw: each left out in turn, and tested on."""

from matplotlib.figure import Figure

from consilium.shared.files.json_record import JsonRecord
from consilium.simulations.experiments.external import external_sentences
from consilium.simulations.figures.measures import TITLES
from consilium.simulations.report.drawing import BLUE, GREEN, ORANGE, Chart, Table, picture
from consilium.simulations.report.forest_plots import mark, ratio_axis, share_text
from consilium.simulations.report.groups import share_of
from consilium.simulations.report.round_charts import name_rows

_MODELS = (
    ("local", "its own model", ORANGE),
    ("external", "federated, never saw it", GREEN),
    ("federated", "federated, it included", BLUE),
)
_MOST_ROWS = 30


def external_chart(record: JsonRecord) -> list[Chart]:
    """Return the forest plot of three models at each hospital; none if none was left out."""
    found = record.get("external")
    if not found:
        return []
    sites = [site for site in found["sites"] if site["judged"]][:_MOST_ROWS]
    if not sites:
        return []
    models = [model for model in _MODELS if any(site[model[0]] for site in sites)]
    ratios = [share_of(site["calibration"]) for site in sites]
    title = TITLES[found["figure"]]
    better = "higher" if found["higher_is_better"] else "lower"

    def draw(figure: Figure) -> None:
        both = figure.subplots(1, 2 if any(ratios) else 1, sharey=True, squeeze=False)[0]
        for row, site in enumerate(sites):
            for place, (model, label, colour) in enumerate(models):
                offset = 0.25 * (place - (len(models) - 1) / 2)
                mark(both[0], row + offset, share_of(site[model]), colour, None if row else label)
        both[0].set_title(f"{title} ({better} is better)")
        both[0].legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=1)
        if any(ratios):
            ratio_axis(both[1], [ratio for ratio in ratios if ratio])
            for row, ratio in enumerate(ratios):
                mark(both[1], row, ratio, GREEN)
            both[1].set_title("its risks there, never having seen it")
        for axes in both:
            name_rows(axes, [f"{site['site']} (n = {site['patients']})" for site in sites])

    sentences = external_sentences(found)
    return [
        Chart(
            name="external",
            title="Does it hold at a hospital it never saw?",
            alt=" ".join(sentences),
            caption="The study was run again without each hospital, with the same privacy, and "
            "tested on that hospital's patients; bars are 95 % intervals. The hospitals are still "
            "those of this study: a new one may differ more. A federation of one hospital fewer "
            f"also has fewer patients and more noise for each. {' '.join(sentences)}",
            drawing=picture("external", draw, height=2.3 + 0.5 * len(sites)),
            table=Table(
                headings=(
                    "hospital",
                    "patients",
                    *(label for _, label, _ in models),
                    "gain by including it",
                    "observed / expected, never saw it",
                ),
                rows=tuple(
                    (
                        site["site"],
                        str(site["patients"]),
                        *(share_text(share_of(site[model])) for model, *_ in models),
                        share_text(share_of(site["gain"])),
                        share_text(share_of(site["calibration"])),
                    )
                    for site in sites
                ),
            ),
        )
    ]
