"""The benchmark page: example studies at several budgets, beside rivals and published figures.

    python benchmarks/parts/page.py --data FOLDER --runs runs/benchmark --out docs/benchmark.md

A comparison that lies in its folder under ``--runs`` is taken as it is; one that is missing, of
another study, or without what the page shows is made there, and goes on where it was cut off.
"""

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure

import consilium
from consilium.simulations.experiments.rivals import BOOSTING, rivals_among
from consilium.simulations.figures.measures import FIGURES, TITLES
from consilium.simulations.report.files import read_comparison
from consilium.simulations.report.forest_plots import setting_title
from consilium.simulations.report.groups import Group, points_of, read_groups

ROOT = Path(__file__).resolve().parents[2]
STUDIES = ROOT / "studies"
MOST_ALARMS = 0.05  # of the hours


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A study on the page.

    Attributes:
        name: of the study's file.
        epsilons: budgets, the largest first.
        seeds: how many.
        published: rows of name, first and second figure; others' splits, unless ``about`` says so.
        about: a sentence below the table.
        alarms: whether to show what alarms in 5 % of the hours find, by hospital.
    """

    name: str
    epsilons: tuple[float, ...]
    seeds: int = 3
    published: tuple[tuple[str, str, str], ...] = ()
    about: str = ""
    alarms: bool = False


ENTRIES = (
    Entry(
        name="icu-mortality-2012",
        epsilons=(8.0, 3.0, 1.0),
        published=(
            ("XGBoost", ".865", ".531"),
            ("LSTM", ".848", ".494"),
            ("mTAND", ".857", ".515"),
            ("STraTS", ".852", ".527"),
            ("DuETT", ".872", ".554"),
        ),
        about="Published figures are of other splits, on one machine and without privacy.",
    ),
    Entry(name="heart-disease", epsilons=(8.0, 2.0)),
    Entry(name="sepsis-2019", epsilons=(8.0,), seeds=1, alarms=True),
    Entry(name="eicu-aki-regions", epsilons=(8.0,), seeds=1),
)


def main() -> None:
    """Make what is missing, and write the page and its figure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the collections")
    parser.add_argument("--runs", type=Path, default=Path("runs/benchmark"))
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "benchmark.md")
    names = [entry.name for entry in ENTRIES]
    parser.add_argument("--only", choices=names, nargs="+", default=names, metavar="STUDY")
    chosen = parser.parse_args()
    entries = [entry for entry in ENTRIES if entry.name in chosen.only]
    try:
        found = [(e, comparison_of(e, chosen.data, chosen.runs / e.name)) for e in entries]
    except consilium.ConsiliumError as error:
        sys.exit(str(error))
    image = chosen.out.parent / "images" / f"{chosen.out.stem}.svg"
    image.parent.mkdir(parents=True, exist_ok=True)
    draw([comparison for _, comparison in found], image)
    chosen.out.write_text(page(found, f"images/{image.name}"), encoding="utf-8")
    print(chosen.out)


def comparison_of(entry: Entry, data: Path | None, folder: Path) -> consilium.Comparison:
    """Return the study's comparison: the one in the folder, or a new one."""
    study = consilium.load_study(STUDIES / f"{entry.name}.toml")
    if (found := finished(entry, study, folder)) is not None:
        print(f"{entry.name}: taken from {folder}")
        return found
    print(f"{entry.name}: made in {folder}", flush=True)
    return consilium.compare(
        study,
        data,
        epsilons=entry.epsilons,
        seeds=entry.seeds,
        out=folder,
        progress=lambda setting, one: print(f"  {setting} {one.round}", end="\r", flush=True),
    )


def finished(entry: Entry, study: consilium.Study, folder: Path) -> consilium.Comparison | None:
    """Return the comparison in the folder if it is of this study and has what the page shows."""
    try:
        found = consilium.open_comparison(folder)
    except consilium.SettingsError:
        return None
    spent = [one.epsilon for one in found.settings if one.epsilon is not None]
    budgets = all(any(0.9 * e < s <= 1.001 * e for s in spent) for e in entry.epsilons)
    judged = any(one.name == "federated" and one.against for one in found.settings)
    same = consilium.with_changes(found.study, privacy=study.privacy.model_dump()) == study
    return found if budgets and judged and same and len(found.seeds) == entry.seeds else None


def page(found: list[tuple[Entry, consilium.Comparison]], image: str) -> str:
    """Return the page's text."""
    lines = [
        "# Benchmarks of the example studies",
        "",
        "Made by `make benchmark-page DATA=FOLDER` from the comparisons of the studies on public "
        "records. Federated settings train at the sites, under the privacy of each patient at the "
        "epsilon given; pooled training and models without recurrence have all records in one "
        "place. Intervals are 95 %, over "
        "test patients and, where there are several, seeds. *Over boosting*: how much better than "
        "gradient boosting on summaries of all records in one place, tuned on folds of its "
        "training patients, on the same test patients; an interval that holds 0 is no difference "
        "beyond noise.",
        "",
        f"![Figures by epsilon, with those of rivals]({image})",
    ]
    for entry, comparison in found:
        lines += ["", f"## {comparison.study.title}", "", *table(entry, comparison)]
    return "\n".join(lines) + "\n"


def table(entry: Entry, comparison: consilium.Comparison) -> Iterator[str]:
    """Yield the lines of a study's part."""
    first, second = FIGURES[comparison.study.task.kind][:2]
    test, records = comparison.settings[0].test, records_of(comparison)
    yield f"`studies/{entry.name}.toml`; seeds {comparison.seeds}; {test.patients} test patients."
    yield ""
    yield f"| setting | {TITLES[first]} | {TITLES[second]} | over boosting | observed/expected |"
    yield "|---|--:|--:|--:|--:|"
    for one in comparison.settings:
        record = records[one.name]
        gain = one.against.get(BOOSTING, {}).get(first)
        cells = [
            setting_title(one.name, record),
            *(interval(one.test.estimates[name]) for name in (first, second)),
            "" if gain is None else interval(gain),
            calibration(record),
        ]
        yield f"| {' | '.join(cells)} |"
    for name, *figures in entry.published:
        yield f"| *{name}, published* | {' | '.join(figures)} | | |"
    if entry.about:
        yield f"\n{entry.about}"
    yield from by_hospital(comparison, first)
    if entry.alarms:
        for name in ("federated", "federated-private"):
            yield from alarms(setting_title(name, records[name]), read_groups(records[name]))


def records_of(comparison: consilium.Comparison) -> dict[str, dict[str, Any]]:
    """Return the records of the settings, of several seeds those of the first."""
    several = len(comparison.seeds) > 1
    folder = comparison.folder / f"seed-{comparison.seeds[0]}" if several else comparison.folder
    return read_comparison(folder)[1]


def calibration(record: dict[str, Any]) -> str:
    """Return observed over expected outcomes of all test patients; empty where not known."""
    whole = next((group for group in read_groups(record) if group.kind == "all"), None)
    return "" if whole is None or whole.calibration is None else f"{whole.calibration.value:.2f}"


def by_hospital(comparison: consilium.Comparison, figure: str) -> Iterator[str]:
    """Yield a table of the figure at each hospital, of all settings and of single hospitals."""
    sites = list(comparison.setting("pooled").by_site)
    if not sites:
        return
    heads = (f"{TITLES[figure]} at {site}" for site in sites)
    yield f"\n| trained | {' | '.join(heads)} |"
    yield "|---|" + "--:|" * len(sites)
    for one in comparison.settings:
        values = (interval(one.by_site[site].estimates[figure]) for site in sites)
        yield f"| {one.name} | {' | '.join(values)} |"
    for owner, model in records_of(comparison)["local"].get("sites", {}).items():
        groups = model.get("groups", {})
        known = (f"{groups[site][figure]['value']:.3f}" if site in groups else "" for site in sites)
        yield f"| at {owner} alone | {' | '.join(known)} |"


def alarms(setting: str, groups: tuple[Group, ...]) -> Iterator[str]:
    """Yield a sentence for all rows and each hospital on what alarms in 5 % of them find."""
    for group in groups:
        few = [p for p in points_of(group) if p.alarm_rate.value <= MOST_ALARMS]
        if group.kind in ("all", "site") and few:
            point = max(few, key=lambda p: p.alarm_rate.value)
            true = "-" if point.precision is None else f"{point.precision.value:.0%}"
            yield (
                f"\n{setting}, {group.name}: with alarms in {point.alarm_rate.value:.1%} of hours "
                f"it finds {point.sensitivity.value:.0%} of those with the outcome; {true} of "
                "alarms are true."
            )


def draw(comparisons: list[consilium.Comparison], path: Path) -> None:
    """Write a figure: for each study the first figure by epsilon, rivals as lines."""
    figure = Figure(figsize=(3.2 * len(comparisons), 3.2), layout="constrained")
    for place, comparison in enumerate(comparisons, start=1):
        name = FIGURES[comparison.study.task.kind][0]
        axes = figure.add_subplot(1, len(comparisons), place)
        federated = [one for one in comparison.settings if one.name.startswith("federated")]
        for index, one in enumerate(federated):
            shown = one.test.estimates[name]
            reach = [[max(shown.value - shown.low, 0)], [max(shown.high - shown.value, 0)]]
            axes.errorbar(index, shown.value, yerr=reach, fmt="s", ms=5, color="tab:blue")
        rivals = rivals_among(one.name for one in comparison.settings)
        for rival, dash in zip(rivals, ("--", ":", "-."), strict=False):
            value = comparison.setting(rival).test.estimates[name].value
            axes.axhline(value, color="grey", ls=dash, lw=1, label=rival)
        names = ["none" if one.epsilon is None else f"{one.epsilon:.2g}" for one in federated]
        axes.set_xticks(range(len(names)), names)
        axes.set_xlabel("epsilon")
        axes.set_ylabel(TITLES[name])
        axes.set_title(comparison.study.name, fontsize=9)
        axes.legend(fontsize=7)
    with rc_context({"svg.hashsalt": "consilium"}):  # the same figures give the same bytes
        figure.savefig(path, format="svg", metadata={"Date": None})


def interval(estimate: consilium.Estimate) -> str:
    """Return a value with its interval."""
    return f"{estimate.value:.3f} ({estimate.low:.3f} to {estimate.high:.3f})"


if __name__ == "__main__":
    main()
