"""HTML pages from template files: what a template is given is text in the page, never markup.

Each room that has a page keeps its templates in a folder ``templates`` beside its code. All pages
extend ``common/page.html``, which lies here.

Guarantees, for every template of every room: values are escaped (autoescape), and a value that was
not given is an error and no empty place (StrictUndefined). Only a ``markupsafe.Markup`` is taken as
markup, so each place that makes one says why it may.
"""

from functools import cache
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, PrefixLoader, StrictUndefined

COMMON = "consilium.shared.service"


@cache
def page_templates(package: str) -> Environment:
    """Return the templates in the folder ``templates`` of a package, and the common ones.

    Args:
        package: its dotted name, such as ``consilium.client.quality``.
    """
    return Environment(
        loader=ChoiceLoader(
            [PackageLoader(package), PrefixLoader({"common": PackageLoader(COMMON)})]
        ),
        autoescape=True,
        undefined=StrictUndefined,
        auto_reload=False,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def render_page(package: str, template: str, **content: Any) -> str:
    """Return a page.

    Args:
        package: whose template it is, by its dotted name.
        template: file in the package's folder ``templates``.
        content: what the template names.

    Raises:
        jinja2.UndefinedError: the template names something that ``content`` lacks.
    """
    return page_templates(package).get_template(template).render(content)
