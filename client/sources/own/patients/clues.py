"""Clues: what lost or odd rows of a hospital's tables look like, counted for ``check`` to guess."""

import numpy as np
import polars as pl
from numpy.typing import NDArray

from consilium.client.sources.common.reasons import (
    BLANKS,
    DAYS,
    DECIMAL_COMMA,
    DOT_ZERO,
    MINUTES,
    THOUSANDS,
    TIMED,
)
from consilium.client.sources.common.source import Tally

HOURS_A_DAY, MINUTES_AN_HOUR = 24.0, 60.0


def normal(text: pl.Series) -> pl.Series:
    """Return texts as :func:`..common.identifiers.normal_identifier` writes them."""
    return text.str.strip_chars().str.replace(r"^([+-]?[0-9]+)\.0+$", "${1}")


def note_changes(text: pl.Series, bare: pl.Series, tally: Tally) -> None:
    """Count the identifiers or codes that differ from their normal form, by what differs."""
    changed = text != bare
    if changed.any():
        blanks = changed & (text.str.strip_chars() != text)
        tally.clue(BLANKS, int(blanks.sum()))
        tally.clue(DOT_ZERO, int((changed & ~blanks).sum()))


def note_commas(word: pl.Series, tally: Tally) -> None:
    """Count the cells, taken for words, that are numbers in a way of writing not declared."""
    number = word.str.strip_chars()
    grouped = number.str.contains(r"^[+-]?[0-9]{1,3}([,.' ][0-9]{3})+([.,][0-9]+)?$")
    comma = number.str.contains(r"^[+-]?[0-9]+,[0-9]+$")
    tally.clue(DECIMAL_COMMA, int((comma & ~grouped).sum()))
    tally.clue(THOUSANDS, int(grouped.sum()))


def note_hours(hours_E: NDArray[np.floating], end_h_E: NDArray[np.floating], tally: Tally) -> None:
    """Count what a column of hours looks like, beside the hours at which the events' stays end.

    Args:
        hours_E: hours since the start of the stay; NaN if unknown.
        end_h_E: hours from start to end of each event's stay; NaN if unknown.
        tally: gets the counts.
    """
    known_E = np.isfinite(hours_E) & np.isfinite(end_h_E) & (hours_E >= 0)
    hours_E, end_h_E = hours_E[known_E], end_h_E[known_E]
    late_E = hours_E > end_h_E
    tally.clue(TIMED, len(hours_E))
    tally.clue(MINUTES, int((late_E & (hours_E <= MINUTES_AN_HOUR * end_h_E)).sum()))
    tally.clue(DAYS, int((HOURS_A_DAY * hours_E <= end_h_E).sum()))
