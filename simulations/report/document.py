"""A report's page: one HTML file that loads nothing from elsewhere and has no scripts.

A page begins with the study and ends with its sections; ``templates/sections/`` has a file for each
kind of section. The templates escape every value but one: a figure's drawing.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from consilium.shared.files.json_record import JsonRecord
from consilium.shared.service.pages import render_page
from consilium.shared.study.definition import Study
from consilium.simulations.report.drawing import Table


@dataclass(frozen=True, kw_only=True)
class Section:
    """A section of a page.

    Attributes:
        name: of its anchor, lower case.
        heading: what stands above it.
        kind: file of ``templates/sections/`` that shows it, without its ending.
        content: the values that the file shows; a section without content is left out.
    """

    name: str
    heading: str
    kind: str
    content: Any

    @property
    def template(self) -> str:
        """The file that shows it."""
        return f"sections/{self.kind}.html"


@dataclass(frozen=True, kw_only=True)
class Tables:
    """Content of a section of kind ``tables``: a sentence, and tables with their captions."""

    lead: str = ""
    tables: tuple[tuple[str, Table], ...]


def document(
    template: str, study: Study, record: JsonRecord, sections: Iterable[Section], **more: Any
) -> str:
    """Return a page that needs no other file and runs no scripts.

    Args:
        template: file of ``templates/`` that extends ``document.html``.
        study: what was run.
        record: of the run, or of one of the runs, that the page is about.
        sections: in their order.
        more: other values that the template uses.
    """
    return render_page(
        "consilium.simulations.report",
        template,
        study=study,
        record=record,
        sections=[section for section in sections if section.content],
        **more,
    )
