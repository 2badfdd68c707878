"""A record as a study reads it, and the windows that are cut from it."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from consilium.client.sources.recorded.record_table import Label
from consilium.shared.study.definition import Study


@dataclass(frozen=True, kw_only=True, repr=False)
class Note:
    """An annotation: begin and length in seconds from the start of the record, and its text."""

    onset_s: float
    duration_s: float
    text: str

    def __repr__(self) -> str:
        return "Note()"


@dataclass(frozen=True, kw_only=True, repr=False)
class Window:
    """A window's values (T, V), NaN where missing, its label, and its first sample's place.

    ``thinned`` is whether it is left out once the variables of the others have been computed.
    """

    value_TV: NDArray[np.float64]
    label: Label
    start: int
    thinned: bool = False

    def __repr__(self) -> str:
        return "Window()"


@dataclass(frozen=True, kw_only=True, repr=False)
class Prepared:
    """A record as the study reads it: signals (T, channels), static values, notes, and label."""

    name: str
    channels: tuple[str, ...]
    signals: NDArray[np.float64]
    static: Mapping[str, float]
    notes: tuple[Note, ...]
    label: Label | None

    def __repr__(self) -> str:
        return "Prepared()"

    def table(self, start: int, stop: int, study: Study) -> NDArray[np.float64]:
        """Return a stretch as a table (T, V) of the study's variables, derived ones NaN."""
        names = list(study.variables)
        signals = self.signals[start:stop]
        value_TV = np.full((len(signals), len(names)), np.nan)
        for column, channel in enumerate(self.channels):
            if channel in study.variables:
                value_TV[:, names.index(channel)] = signals[:, column]
        for name, value in self.static.items():
            value_TV[:1, names.index(name)] = value
        return value_TV
