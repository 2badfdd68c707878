"""How Sphinx builds the documentation; ``docs/site/assemble.py`` writes what it reads."""

import re
from typing import Any

from consilium.shared.version import VERSION

project = "Consilium"
author = project_copyright = "The Consilium developers"
release = VERSION

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_default_options = {"exclude-members": "model_config, model_post_init"}
python_use_unqualified_type_names = True
napoleon_use_ivar = True  # fields named under "Attributes" are described once
napoleon_use_rtype = False
default_role = "code"  # docstrings write `name` for code

html_theme = "furo"
html_title = "Consilium"
html_copy_source = False
html_show_sourcelink = False

BARS = re.compile(r"(``[^`]*``|`[^`]*`)|\|")


def keep_bars(_: Any, __: str, ___: str, ____: Any, _____: Any, lines: list[str]) -> None:
    """Let |x| in a docstring stay the amount of x, not a substitution's name."""
    lines[:] = [BARS.sub(lambda found: found[1] or r"\|", line) for line in lines]


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.connect("autodoc-process-docstring", keep_bars)
