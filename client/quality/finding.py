"""One thing to know about a site's data, with its remedy."""

from dataclasses import dataclass
from typing import Literal

Level = Literal["stops", "warns", "tells"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing to know about the data.

    Attributes:
        level: ``stops`` (no training), ``warns``, or ``tells`` (for information).
        about: the variable, or the part of the data.
        told: what was found, in one sentence.
        remedy: what to do.
    """

    level: Level
    about: str
    told: str
    remedy: str
