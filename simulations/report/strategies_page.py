"""The page of ``compare --strategies``: ways of sharing a model side by side.

It is made from ``strategies.json`` alone; the same record gives the same bytes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from matplotlib.figure import Figure

from consilium.shared.figures.risk_curves import Share
from consilium.shared.files.json_record import JsonRecord
from consilium.shared.study.definition import Study
from consilium.simulations.figures.measures import FIGURES, TITLES
from consilium.simulations.report.checks import worse_by
from consilium.simulations.report.document import Section, Tables, document
from consilium.simulations.report.drawing import BLUE, GREY, Chart, Table, number, picture
from consilium.simulations.report.forest_plots import mark, share_text
from consilium.simulations.report.groups import share_of
from consilium.simulations.report.records import size
from consilium.simulations.report.round_charts import name_rows

WORDS: Mapping[str, str] = MappingProxyType(
    {
        "local": "each hospital trains alone",
        "pooled": "all records in one place",
        "study": "as the study says",
        "fedavg": "the mean update is added",
        "fedavgm": "the mean update, with momentum",
        "fedadagrad": "a server step by Adagrad",
        "fedadam": "a server step by Adam",
        "fedyogi": "a server step by Yogi",
        "fedprox": "local steps pulled back to the round's weights",
        "scaffold": "local steps corrected by how hospitals' gradients differ",
        "head": "each hospital keeps its own maps to the outputs",
        "norm": "each hospital keeps its own normalisation of the state",
        "inputs": "inputs normalised by each hospital's own statistics",
        "ditto": "a second model at each hospital, held near the shared one",
    }
)
_MOST_PANELS = 8
_UNSHARED = ("local", "pooled")


@dataclass(frozen=True, kw_only=True)
class Way:
    """A way of sharing: its records without and with privacy; None for one that was not run."""

    name: str
    plain: JsonRecord | None
    private: JsonRecord | None


def strategies_page(
    study: Study, settings: Mapping[str, JsonRecord], refused: Mapping[str, str]
) -> str:
    """Return the whole page.

    Args:
        study: what was run, before a strategy changed it.
        settings: the records in ``strategies.json``, by name.
        refused: for each strategy that makes no sense in the study, the reason.
    """
    ways, first = _ways(settings), next(iter(settings.values()))
    charts = [_overall(study, ways), *_by_group(study, ways)]
    figures = Tables(tables=(("Judged on the same patients", _table(study, settings)),))
    not_run = [f"{name}: {why}" for name, why in refused.items()]
    sections = [
        Section(name=name, heading=heading, kind=kind, content=content)
        for name, heading, kind, content in (
            ("summary", "Summary", "sentences", summary(study, ways)),
            ("strategies", "Ways of sharing a model", "figures", charts),
            ("words", "What they do", "sentences", _words(ways)),
            ("figures", "All figures", "tables", figures),
            ("refused", "Not run", "sentences", not_run),
            ("numbers", "The numbers of the figures", "numbers", charts),
        )
    ]
    return document("strategies.html", study, first, sections)


def summary(study: Study, ways: list[Way]) -> list[str]:
    """Return sentences on what stands out, by the rules in this function."""
    name = FIGURES[study.task.kind][0]
    sentences = []
    for private in (False, True):
        found = {
            way.name: share
            for way in ways
            if way.name not in _UNSHARED and (share := _share(way, name, private=private))
        }
        if not found:
            continue
        best = min(found, key=lambda key: worse_by(name, found[key].value, 0.0))
        near = [
            key
            for key, share in found.items()
            if key != best and share.low <= found[best].value <= share.high
        ]
        how = "With privacy" if private else "Without privacy"
        sentences.append(
            f"{how} the best {TITLES[name]} has {best}, {share_text(found[best])}."
            + _unsure(len(near), len(found) - 1)
        )
    beside = [
        f"{WORDS[way.name]}: {share_text(share)}"
        for way in ways
        if way.name in _UNSHARED and (share := _share(way, name, private=False))
    ]
    sentences.append(f"Beside them, without privacy, {'; '.join(beside)}.")
    return [
        *sentences,
        "One run each: another seed, and other privacy noise, would move every row. Where "
        "hospitals have models of their own, each is judged on its own patients.",
    ]


def _unsure(near: int, others: int) -> str:
    if not near:
        return ""
    of = "the interval of the one other" if others == 1 else f"the intervals of {near} of {others}"
    return f" It lies within {of}{'' if others == 1 else ' others'}, so their order is not sure."


def _ways(settings: Mapping[str, JsonRecord]) -> list[Way]:
    found: dict[str, dict[str, JsonRecord]] = {}
    for name, record in settings.items():
        base, _, mode = name.partition(", ")
        label = base if mode in ("", record["privacy"]["mode"]) else name
        private = record["privacy"]["epsilon"] is not None
        key = f"{label}, {mode}" if private and "private" in found.get(label, {}) else label
        found.setdefault(key, {})["private" if private else "plain"] = record
    return [
        Way(name=name, plain=each.get("plain"), private=each.get("private"))
        for name, each in found.items()
    ]


def _share(way: Way, name: str, *, private: bool, group: str = "") -> Share | None:
    record = way.private if private else way.plain
    if record is None:
        return None
    figures = record["test_groups"].get(group, {}) if group else record["test"]
    return share_of(figures.get(name))


def _draw(axes: Any, ways: list[Way], name: str, group: str = "") -> None:
    """Draw two marks in each row, without and with privacy; the legend names the first of each."""
    labels = {False: "without privacy", True: "with privacy"}
    for row, way in enumerate(ways):
        for private, colour, offset in ((False, GREY, -0.16), (True, BLUE, 0.16)):
            if share := _share(way, name, private=private, group=group):
                mark(axes, row + offset, share, colour, labels.pop(private, None))
    name_rows(axes, [way.name for way in ways])


def _overall(study: Study, ways: list[Way]) -> Chart:
    name = FIGURES[study.task.kind][0]

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        _draw(axes, ways, name)
        if line := next(
            (s for w in ways if w.name == "pooled" and (s := _share(w, name, private=False))), None
        ):
            axes.axvline(line.value, color=GREY, ls="--", lw=1)
        axes.set_xlabel(f"{TITLES[name]}, 95 % interval")
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=2)

    return _chart(
        "overall",
        f"{TITLES[name]} of all test patients",
        ways,
        {"all": (name, "")},
        draw,
        "Dashed: all records in one place. Intervals may overlap where one way is surely better, "
        "because all are judged on the same patients.",
    )


def _by_group(study: Study, ways: list[Way]) -> list[Chart]:
    """Return a chart with a panel for each hospital; none if hospitals are unknown or too many."""
    name = FIGURES[study.task.kind][0]
    groups = list(dict.fromkeys(g for w in ways for r in (w.plain, w.private) if r
                                for g in r.get("test_groups", ())))  # fmt: skip
    if not 1 < len(groups) <= _MOST_PANELS:
        return []
    columns = min(len(groups), 4)

    def draw(figure: Figure) -> None:
        rows = -(-len(groups) // columns)
        panels = figure.subplots(rows, columns, sharey=True, squeeze=False).flatten()
        for axes, group in zip(panels, groups, strict=False):
            _draw(axes, ways, name, group)
            axes.set(title=group)
        for axes in panels[len(groups) :]:
            axes.axis("off")
        figure.supxlabel(f"{TITLES[name]}, 95 % interval", fontsize=9.5)

    return [
        _chart(
            "hospitals",
            f"{TITLES[name]} at each hospital",
            ways,
            {group: (name, group) for group in groups},
            draw,
            "Colours as above. A hospital with few patients of either outcome has wide intervals.",
            rows=-(-len(groups) // columns),
        )
    ]


def _chart(
    anchor: str,
    title: str,
    ways: list[Way],
    columns: Mapping[str, tuple[str, str]],
    draw: Any,
    caption: str,
    rows: int = 1,
) -> Chart:
    """Return a chart of all ways, with a table of its columns' shares."""
    kinds = [
        private
        for private in (False, True)
        if any((way.private if private else way.plain) for way in ways)
    ]
    cells = tuple(
        (
            way.name,
            *(
                share_text(_share(way, name, private=private, group=group))
                for name, group in columns.values()
                for private in kinds
            ),
        )
        for way in ways
    )
    headings = [
        f"{column}{', private' if private else ''}" for column in columns for private in kinds
    ]
    return Chart(
        name=anchor,
        title=title,
        alt="; ".join(f"{row[0]}: {', '.join(row[1:])}" for row in cells) + ".",
        caption=caption,
        drawing=picture(anchor, draw, height=(1.2 + 0.36 * len(ways)) * rows),
        table=Table(headings=("strategy", *headings), rows=cells),
    )


def _table(study: Study, settings: Mapping[str, JsonRecord]) -> Table:
    first, *others = FIGURES[study.task.kind]
    rows = []
    for setting, record in settings.items():
        sent = record["bytes_up_per_site_per_round"]
        rows.append(
            (
                setting,
                number(record["privacy"]["epsilon"], 2),
                share_text(share_of(record["test"][first])),
                *(number(record["test"][name]["value"]) for name in others),
                size(sent) if sent else "–",
                f"{record['seconds']:.0f}",
            )
        )
    headings = ("strategy", "epsilon", *(TITLES[name] for name in (first, *others)),
                "sent a round", "seconds")  # fmt: skip
    return Table(headings=headings, rows=tuple(rows))


def _words(ways: list[Way]) -> list[str]:
    used = dict.fromkeys(
        part.partition("=")[0] for way in ways for part in way.name.partition(", ")[0].split("+")
    )
    return [f"{name}: {WORDS[name]}." for name in used if name in WORDS]
