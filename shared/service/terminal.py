"""The one way to a terminal: whatever text comes, from a file or a person, prints as it is.

Rich reads ``[data]`` in a sentence as a style and ``:heart:`` as a picture, shortens the cells of a
table that is too wide, and passes on control characters, with which a text from elsewhere could
write over what stands on the screen. Here none of it happens: commands print through
:class:`Terminal` alone, and through :class:`Table`; a test holds that nobody makes another console.

Guarantee: the characters printed of a text are those of :func:`as_shown`, line breaks aside.
"""

from typing import Any

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.style import Style
from rich.table import Table as RichTable
from rich.text import Text

_KEPT = "\n\t"
_OVERWRITING = (
    *range(0x20),  # controls, the escape that begins a terminal's commands among them
    *range(0x7F, 0xA0),
    *range(0x200E, 0x2010),  # marks, embeddings and isolates that turn the direction of writing
    *range(0x2028, 0x202F),
    *range(0x2066, 0x206A),
)
_SHOWN = {
    code: chr(code).encode("unicode_escape").decode()
    for code in _OVERWRITING
    if chr(code) not in _KEPT
}


def as_shown(text: str) -> str:
    r"""Return the text with control characters written out, such as ``\x1b``, else as it is."""
    return text.translate(_SHOWN)


def one_line(text: str) -> str:
    """Return the text as :func:`as_shown` does, with line breaks written out, too."""
    return as_shown(text).replace("\n", "\\n")


def styled(text: str, style: str) -> Text:
    """Return a text to print in a style such as ``red``; the text itself says nothing of style."""
    return Text(as_shown(text), style=style)


class Terminal(Console):
    """A console for which every string is text.

    Args:
        stderr: print to standard error.
        soft_wrap: leave long lines to the terminal to wrap.
    """

    def __init__(self, *, stderr: bool = False, soft_wrap: bool = True) -> None:
        super().__init__(
            stderr=stderr, soft_wrap=soft_wrap, markup=False, emoji=False, highlight=False
        )

    def render_str(self, text: str, *, style: str | Style = "", **layout: Any) -> Text:
        """Return the string as text; what asks for markup, pictures or colours is not heard.

        Rich calls this for every string that is printed, cells and titles included.
        """
        return Text(
            as_shown(text),
            style=style,
            justify=layout.get("justify"),
            overflow=layout.get("overflow"),
        )

    def heading(self, text: str) -> None:
        """Print a line that begins a part: the text, and a rule up to the right edge if it fits."""
        line = "-" if self.options.ascii_only else "─"
        self.print(f"{line} {text} {line * max(1, self.width - 4 - cell_len(text))}")


class Table(RichTable):
    """A table whose cells break into lines where they are too wide, and lose nothing."""

    def add_column(self, *arguments: Any, **options: Any) -> None:
        """Add a column as Rich does, folded unless it is said otherwise."""
        super().add_column(*arguments, **{"overflow": "fold"} | options)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the table; where it does not fit, columns that should not wrap do."""
        if Measurement.get(console, options.update(width=10_000), self).maximum > options.max_width:
            for column in self.columns:
                column.no_wrap = False
        yield from super().__rich_console__(console, options)
