"""Figures of a report: inline SVG by Matplotlib, its text alternative, and its numbers as a table.

The same content gives the same bytes: identifiers are derived from the figure's name, and no date
is written. Text is not drawn as shapes, so that it can be searched, scaled and read aloud.
"""

import io
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator, NullFormatter

from consilium.shared.figures.risk_curves import Share
from consilium.shared.files.json_record import JsonRecord

# Colours that colour-blind people can tell apart (Okabe & Ito 2008), darkened for a white page.
BLUE, ORANGE, GREEN, GREY, INK = "#0a5c9e", "#b84a00", "#00735c", "#616b78", "#1b2430"
PALE = "#cfd6df"
COLOURS = (BLUE, ORANGE, GREEN, "#8a4f86", GREY)
_SETTINGS: Any = {  # Any: Matplotlib's stubs name every key
    "svg.fonttype": "none",
    "text.parse_math": False,  # names come from studies and hospitals, and are no formulas
    "font.size": 9.5,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e8ee",
    "legend.frameon": False,
    "xtick.color": INK,
    "ytick.color": INK,
}
_MOST_ROWS = 24
_SCALE = 122  # pixels per inch; with this the widest figure fills the page


@dataclass(frozen=True, kw_only=True)
class Table:
    """Headings and rows of a table; the first column names the row."""

    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """The content of an SVG element, and the element's width in pixels and view box."""

    width: int
    view_box: str
    content: Markup


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A figure of the report.

    Attributes:
        name: of its anchor, lower case.
        title: what is shown, in a few words.
        alt: what the figure shows, for those who cannot see it.
        caption: how to read it.
        drawing: the figure itself.
        table: the same numbers.
    """

    name: str
    title: str
    alt: str
    caption: str
    drawing: Drawing
    table: Table


def picture(
    name: str,
    draw: Callable[[Figure], None],
    *,
    width: float = 7.6,
    height: float = 3.4,
) -> Drawing:
    """Return the drawing that ``draw`` makes on an empty figure.

    Args:
        name: makes the identifiers inside the drawing unique in the page.
        draw: adds axes and content.
        width: in inches.
        height: in inches.
    """
    with mpl.rc_context({**_SETTINGS, "svg.hashsalt": name}):
        figure = Figure(figsize=(width, height), layout="constrained")
        draw(figure)
        written = io.StringIO()
        metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(written, format="svg", metadata=metadata, transparent=True)
    svg = written.getvalue()
    opening = re.search(r'<svg [^>]*?viewBox="([^"]*)"[^>]*>', svg)
    if opening is None:
        raise ValueError("Matplotlib wrote an SVG element without a view box")
    svg = svg[opening.end() : svg.rindex("</svg>")].strip()
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", svg, flags=re.S)
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r'(xlink:href="#|url\(#)', rf"\g<1>{name}-", svg)
    svg = svg.replace("xlink:href", "href")
    # The one place where a page takes markup unescaped: Matplotlib wrote all of it, and escapes the
    # text in it, so a tag in a name is shown as text.
    content = Markup(svg)  # noqa: S704
    return Drawing(width=round(_SCALE * width), view_box=opening[1], content=content)


def plain_ticks(axis: Axis, ticks: Sequence[float] | None = None) -> None:
    """Label a logarithmic axis by plain numbers, at its decades unless ``ticks`` are given."""
    if ticks is not None:
        axis.set_major_locator(FixedLocator(ticks))
    axis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.set_minor_formatter(NullFormatter())


def interval(axes: Axes, share: Share, row: float, colour: str, label: str | None = None) -> None:
    """Draw an estimate and its interval in a row; rounding may put it just outside of that."""
    reach = [[max(share.value - share.low, 0)], [max(share.high - share.value, 0)]]
    axes.errorbar(share.value, row, xerr=reach, fmt="s", ms=5, color=colour, label=label)


def round_axis(axes: Axes) -> None:
    """Make the horizontal axis count training rounds."""
    axes.set_xlabel("training round")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def thinned(rows: Iterable[tuple[str, ...]]) -> tuple[tuple[str, ...], ...]:
    """Return about two dozen rows at most, evenly chosen, with the first and the last."""
    every = tuple(rows)
    if len(every) <= _MOST_ROWS:
        return every
    step = (len(every) - 1) / (_MOST_ROWS - 1)
    return tuple(every[round(index * step)] for index in range(_MOST_ROWS))


def number(value: float | None, digits: int = 3) -> str:
    """Return a number as text; a dash for None."""
    return "–" if value is None else f"{value:.{digits}f}"


def delta_text(privacy: JsonRecord) -> str:
    """Return delta as text without a line break at its minus sign."""
    return f"{privacy['delta']:g}".replace("-", "\u2011")


def between(low: float | None, high: float | None, digits: int = 3) -> str:
    """Return the bounds of an interval as text."""
    return f"{number(low, digits)} to {number(high, digits)}"


def percent(share: float | None, digits: int = 0) -> str:
    """Return a share as a percentage."""
    return "–" if share is None else f"{100 * share:.{digits}f}\u00a0%"
