"""Figures of a report: inline SVG by Matplotlib, its text alternative, and its numbers as a table.

The same content gives the same bytes: identifiers are derived from the figure's name, and no date
is written. Text stays text, so that it can be searched, scaled and read aloud.
"""

import html
import io
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator, NullFormatter

from consilium.shared.figures.risk_curves import Share

# Told apart by people who do not see all colours (Okabe & Ito 2008), darkened to stand on white.
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
_SCALE = 122  # pixels an inch on a screen: the widest figure fills the page


@dataclass(frozen=True, kw_only=True)
class Table:
    """Headings and rows of a table; the first column names the row."""

    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def to_html(self, caption: str) -> str:
        """Return the table with a caption and header cells that say what they head."""
        head = "".join(f"<th scope='col'>{html.escape(name)}</th>" for name in self.headings)
        body = "".join(
            f"<tr><th scope='row'>{html.escape(name)}</th>"
            + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells)
            + "</tr>"
            for name, *cells in self.rows
        )
        return (
            f"<div class='scroll'><table><caption>{html.escape(caption)}</caption>"
            f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
        )


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A figure of the report.

    Attributes:
        name: of its anchor, lower case.
        title: what is shown, in a few words.
        alt: what the figure says, for who cannot see it.
        caption: how to read it.
        svg: the drawing.
        table: the same numbers.
    """

    name: str
    title: str
    alt: str
    caption: str
    svg: str
    table: Table

    def to_html(self) -> str:
        """Return the figure with its caption and a link to its numbers."""
        label = f"<title id='{self.name}-title'>{html.escape(self.title)}</title>"
        described = f"<desc id='{self.name}-desc'>{html.escape(self.alt)}</desc>"
        opening = (
            f"<svg role='img' aria-labelledby='{self.name}-title' "
            f"aria-describedby='{self.name}-desc' "
        )
        svg = self.svg.replace("<svg ", opening, 1).replace(">", f">{label}{described}", 1)
        return (
            f"<figure id='{self.name}'>{svg}"
            f"<figcaption><b>{html.escape(_sentence(self.title))}</b> "
            f"{html.escape(self.caption)} <a href='#{self.name}-numbers'>Numbers</a>"
            "</figcaption></figure>"
        )

    def numbers(self) -> str:
        """Return the table of the figure's numbers, for the report's appendix."""
        return f"<div id='{self.name}-numbers'>{self.table.to_html(self.title)}</div>"


def picture(
    name: str,
    draw: Callable[[Figure], None],
    *,
    width: float = 7.6,
    height: float = 3.4,
) -> str:
    """Return what ``draw`` makes of an empty figure, as an SVG element.

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
    svg = svg[svg.index("<svg ") :].strip()
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", svg, flags=re.S)
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r'(xlink:href="#|url\(#)', rf"\g<1>{name}-", svg)
    svg = re.sub(
        r'^<svg [^>]*?(viewBox="[^"]*")[^>]*>', rf'<svg width="{_SCALE * width:.0f}" \1>', svg
    )
    return svg.replace("xlink:href", "href")


def plain_ticks(axis: Axis, ticks: Sequence[float] | None = None) -> None:
    """Label a logarithmic axis by plain numbers, at its decades unless ``ticks`` are given."""
    if ticks is not None:
        axis.set_major_locator(FixedLocator(ticks))
    axis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.set_minor_formatter(NullFormatter())


def interval(axes: Axes, share: Share, row: float, colour: str, label: str | None = None) -> None:
    """Draw an estimate and its interval in a row; rounding may put the estimate beside it."""
    reach = [[max(share.value - share.low, 0)], [max(share.high - share.value, 0)]]
    axes.errorbar(share.value, row, xerr=reach, fmt="s", ms=5, color=colour, label=label)


def round_axis(axes: Axes) -> None:
    """Let the horizontal axis count training rounds."""
    axes.set_xlabel("training round")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def thinned(rows: Iterable[tuple[str, ...]]) -> tuple[tuple[str, ...], ...]:
    """Return at most about two dozen rows, evenly chosen, the first and the last among them."""
    every = tuple(rows)
    if len(every) <= _MOST_ROWS:
        return every
    step = (len(every) - 1) / (_MOST_ROWS - 1)
    return tuple(every[round(index * step)] for index in range(_MOST_ROWS))


def number(value: float | None, digits: int = 3) -> str:
    """Return a number, or a dash where there is none."""
    return "–" if value is None else f"{value:.{digits}f}"


def told_delta(privacy: Mapping[str, Any]) -> str:
    """Return delta, never broken at its hyphen."""
    return f"{privacy['delta']:g}".replace("-", "\u2011")


def between(low: float | None, high: float | None, digits: int = 3) -> str:
    """Return the bounds of an interval."""
    return f"{number(low, digits)} to {number(high, digits)}"


def _sentence(title: str) -> str:
    return title if title.endswith("?") else f"{title}."


def percent(share: float | None, digits: int = 0) -> str:
    """Return a share as a percentage."""
    return "–" if share is None else f"{100 * share:.{digits}f}\u00a0%"
