"""What was found out about tables: the stays, the events, and why each guess was made."""

from dataclasses import dataclass, field

import polars as pl

from consilium.shared.errors import SettingsError
from consilium.simulations.guesses.look import Look
from consilium.simulations.guesses.roles import Choices, GuessNotes
from consilium.simulations.guesses.variables import Quantity

STAYS, EVENTS = "stays.csv", "events.csv"  # made, where a table is not yet of this form
ISO_FORMAT = "%Y-%m-%d %H:%M:%S"
FIRST_TIME = "first time"  # column of the stays made, with the first time of their events
MOST_VARIABLES = 40


@dataclass(kw_only=True, eq=False)
class Events:
    """A table of events: its columns by role, as ``[[data.events]]`` names them."""

    look: Look | None
    file: str
    columns: dict[str, str]
    notes: GuessNotes
    hours: pl.Series
    hours_unit: str = "h"
    time_format: str | None = None
    quantities: list[Quantity] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)


@dataclass(kw_only=True, eq=False)
class Tables:
    """All guesses about tables.

    Attributes:
        stays: the look at the table of stays, or at the table from which it is made.
        file: of the stays.
        columns: the stays' columns by role.
        notes: the reasons.
        time_format: of the stays' times.
        quantities: static variables.
        events: the tables of events.
        label: kind, outputs, center and spread of the task.
        made: tables to be written beside the settings.
        persons: number of persons.
        remarks: what the reader must know besides.
    """

    stays: Look
    file: str
    columns: dict[str, str]
    notes: GuessNotes
    time_format: str | None = None
    quantities: list[Quantity] = field(default_factory=list)
    events: list[Events] = field(default_factory=list)
    label: dict[str, str | int | float] = field(default_factory=dict)
    made: dict[str, pl.DataFrame] = field(default_factory=dict)
    persons: int = 0
    remarks: list[str] = field(default_factory=list)


def format_of(look: Look, column: str, choices: Choices) -> str | None:
    """Return the format of a column's times, None in ISO form.

    Raises:
        SettingsError: two formats fit, such as day before month and month before day.
    """
    fitting = look.formats.get(column, ())
    if choices.time_format is not None and fitting:
        known = look.texts(column).drop_nulls()
        if known.str.to_datetime(choices.time_format, strict=False).null_count():
            raise SettingsError(
                f"{look.path}: --time-format {choices.time_format!r} does not fit the times in "
                f"{column!r}; {' or '.join(map(repr, fitting))} would"
            )
        return choices.time_format
    if len(fitting) > 1:
        raise SettingsError(
            f"{look.path}: the times in {column!r} could be {' or '.join(fitting)}; say which: "
            f"--time-format '{fitting[0]}'"
        )
    return fitting[0] if fitting else None


def numbers_rows(numbers: pl.Series) -> bool:
    """Return whether a column only numbers its rows."""
    steps = numbers.diff().drop_nulls()
    return len(steps) > 2 and bool((steps == 1).all()) and numbers.null_count() == 0
