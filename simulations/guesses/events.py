"""Guesses about a table of events: whose, when, what; long or wide."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import polars as pl

from consilium.shared.errors import SettingsError
from consilium.simulations.guesses.found import (
    FIRST_TIME,
    ISO_FORMAT,
    MOST_VARIABLES,
    STAYS,
    Events,
    Tables,
    format_of,
    numbers_rows,
)
from consilium.simulations.guesses.look import Look
from consilium.simulations.guesses.roles import Choices, GuessNotes, key_columns, one_column
from consilium.simulations.guesses.variables import Quantity, quantity
from consilium.simulations.guesses.words import unit_in, unit_of_hours

HOURS_IN = {"min": 1 / 60, "h": 1.0, "d": 24.0}


def events_in(
    look: Look, found: Tables, choices: Choices, leave: Sequence[str] = ()
) -> Events | None:
    """Return a table's columns as events, None if it has no key or no time."""
    notes = GuessNotes()
    key = _key_in(look, found, choices, notes)
    if key is None:
        found.remarks.append(f"{look.name} is not read: no column names a stay or a person")
        return None
    kind, column = key
    columns, used = {kind: column}, [column, *leave]
    free = [name for name in look.columns if name not in used]
    time = one_column(look, "time", [n for n in free if n in look.times], choices, notes)
    hours = None
    if time is None:
        only = [n for n in free if n in look.times]
        numeric = [n for n in free if n in look.numbers]
        hours = one_column(look, "hours", numeric, choices, notes)
        if hours is None and len(only) == 1:
            time = only[0]
            notes.say("time", f"{time!r} is the only column of times")
    if time is None and hours is None:
        found.remarks.append(f"{look.name} is not read: no column says when")
        return None
    made = Events(look=look, file=str(look.path), columns=columns, notes=notes, hours=pl.Series())
    if time is not None:
        columns["time"] = time
        made.time_format = format_of(look, time, choices)
        _begin(found, look, column, time)
        made.hours = _since_start(found, look, kind, column, time)
    elif hours is not None:
        columns["hours"] = hours
        made.hours_unit = _hours_unit(look, hours, choices, notes)
        made.hours = look.numbers[hours] * HOURS_IN[made.hours_unit]
        if kind == "patient":
            if "stay" in found.columns:
                raise SettingsError(
                    f"{look.path}: hours count from the start of a stay, and no column names the "
                    "stay; name it: --column stay=NAME"
                )
            columns["stay"] = columns.pop("patient")
    free = [name for name in free if name not in (time, hours)]
    variable = one_column(look, "variable", free, choices, notes)
    value = one_column(look, "value", [n for n in free if n != variable], choices, notes)
    if variable is not None and value is not None:
        _long(made, look, variable, value, free, choices)
    else:
        _wide(made, look, free, found)
    if not made.quantities and not leave:
        found.remarks.append(f"{look.name} is not read: no column could be a measurement")
        return None
    return made


def _key_in(
    look: Look, found: Tables, choices: Choices, notes: GuessNotes
) -> tuple[str, str] | None:
    """Return whether a table names stays or persons, and its column."""
    stay, person = found.columns.get("stay"), found.columns["patient"]
    for kind, column in (("stay", stay), ("patient", person)):
        if column is not None and column in look.columns:
            if kind == "patient" and stay is None:
                return "stay", column  # every person has one stay
            return kind, column
    for kind, role in (("stay", "stay"), ("patient", "person")):
        if kind == "stay" and stay is None:
            continue
        free = Choices() if role in choices.columns else choices
        if (column := one_column(look, role, key_columns(look), free, notes)) is not None:
            return ("stay" if stay is None else kind), column
    return None


def _begin(found: Tables, look: Look, key: str, time: str) -> None:
    """Take the first time of each stay for its start, in a table that was made."""
    one_table = look.path == found.stays.path and STAYS in found.made
    if "start" in found.columns or not one_table:
        return
    first = (
        pl.DataFrame([look.texts(key).alias(key), look.times[time].alias(FIRST_TIME)])
        .group_by(key)
        .agg(pl.col(FIRST_TIME).min())
    )
    texts = pl.col(FIRST_TIME).dt.strftime(found.time_format or ISO_FORMAT)
    found.made[STAYS] = found.made[STAYS].with_columns(pl.col(key).cast(pl.String)).join(
        first.with_columns(texts), on=key, how="left", maintain_order="left"
    )  # fmt: skip  # reads as one
    found.columns["start"] = FIRST_TIME
    found.notes.say("start", "the first time of each in the table, as no column says it")


def _since_start(found: Tables, look: Look, kind: str, key: str, time: str) -> pl.Series:
    """Return hours since the stay's start, as far as keys and starts are known."""
    if STAYS in found.made and FIRST_TIME in found.made[STAYS].columns:
        stays = found.made[STAYS].select(
            pl.col(key).cast(pl.String).alias("key"),
            pl.col(FIRST_TIME)
            .str.to_datetime(found.time_format or ISO_FORMAT, time_unit="us")
            .alias("start"),
        )
    elif "start" in found.columns and found.columns["start"] in found.stays.times:
        own = found.columns.get("stay") if kind == "stay" else found.columns["patient"]
        column = own or found.columns["patient"]
        stays = pl.DataFrame(
            [found.stays.texts(column).alias("key"),
             found.stays.times[found.columns["start"]].alias("start")]
        )  # fmt: skip  # reads as one
    else:
        return pl.Series([], dtype=pl.Float64)
    events = pl.DataFrame([look.texts(key).alias("key"), look.times[time].alias("time")])
    joined = events.join(stays.unique("key"), on="key", how="inner")
    naive = [pl.col(name).dt.replace_time_zone(None) for name in ("time", "start")]
    hours = joined.with_columns(naive).select(
        (pl.col("time") - pl.col("start")).dt.total_minutes() / 60
    ).to_series()  # fmt: skip  # reads as one
    return hours.filter(hours >= 0)


def _hours_unit(look: Look, column: str, choices: Choices, notes: GuessNotes) -> str:
    """Return what a column of numbers counts.

    Raises:
        SettingsError: its name does not say it.
    """
    if choices.hours_unit is not None:
        return choices.hours_unit
    unit = unit_of_hours(column)
    if unit is None:
        raise SettingsError(
            f"{look.path}: column {column!r} could count minutes, hours or days; say which: "
            "--hours-unit min, h or d"
        )
    notes.say("hours_unit", f"by the name {column!r}")
    return unit


def _long(
    made: Events, look: Look, variable: str, value: str, free: Sequence[str], choices: Choices
) -> None:
    """Find the codes of a table with one measurement a row."""
    made.columns |= {"variable": variable, "value": value}
    left = [name for name in free if name not in (variable, value)]
    unit = one_column(look, "unit", left, choices, made.notes)
    if unit is not None:
        made.columns["unit"] = unit
    plain = look.texts(value)
    if look.decimal_comma:
        plain = plain.str.replace(",", ".", literal=True)
    numbers = plain.str.strip_chars_start("<> =").cast(pl.Float64, strict=False)
    units = look.texts(unit) if unit is not None else pl.Series([None], dtype=pl.String)
    rows = pl.DataFrame({"code": look.texts(variable), "value": numbers}).with_columns(
        (units if unit is not None else units.new_from_index(0, len(numbers))).alias("unit")
    )
    made.quantities, made.unused = quantities_in(rows)


def quantities_in(
    rows: pl.DataFrame, called: Mapping[str, str] = MappingProxyType({})
) -> tuple[list[Quantity], list[str]]:
    """Return the quantities of a long table, the most frequent first, and the codes left over.

    Args:
        rows: ``code``, ``value`` (null if it is no number) and ``unit``.
        called: what a code is called, if not as it is written.
    """
    numeric = rows.drop_nulls(["code", "value"]).group_by("code").len()
    codes = numeric.sort("len", "code", descending=[True, False])["code"].to_list()
    found: list[Quantity] = []
    taken: set[str] = set()
    for code in codes[:MOST_VARIABLES]:
        of_code = rows.filter(pl.col("code") == code)
        units = of_code["unit"].drop_nulls().value_counts(sort=True)
        common = units["unit"][0] if len(units) else None
        values = of_code.filter(pl.col("unit") == common)["value"] if common else of_code["value"]
        one = quantity(code, values, common, taken, static=False, called=called.get(code))
        taken.add(one.name)
        found.append(one)
    return found, codes[MOST_VARIABLES:]


def _wide(made: Events, look: Look, free: Sequence[str], found: Tables) -> None:
    """Find the columns of a table with a column for each variable."""
    made.columns["layout"] = "wide"
    taken = {one.name for one in found.quantities}
    for name in free:
        usable = name in look.numbers and not numbers_rows(look.numbers[name])
        if not usable or len(made.quantities) >= MOST_VARIABLES:
            made.unused.append(name)
            continue
        one = quantity(name, look.numbers[name], unit_in(name), taken, static=False)
        taken.add(one.name)
        made.quantities.append(one)
