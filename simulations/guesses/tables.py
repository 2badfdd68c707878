"""Guesses about tables: which has the stays, which the events, and what their columns are."""

from collections.abc import Sequence

import polars as pl

from consilium.shared.errors import DataError, SettingsError
from consilium.simulations.guesses.events import events_in
from consilium.simulations.guesses.found import (
    EVENTS,
    MOST_VARIABLES,
    STAYS,
    Events,
    Tables,
    format_of,
    numbers_rows,
)
from consilium.simulations.guesses.look import Look, look_at
from consilium.simulations.guesses.roles import (
    MOST_CLASSES,
    Choices,
    GuessNotes,
    is_binary,
    key_columns,
    label_of,
    one_column,
    person_of,
)
from consilium.simulations.guesses.variables import SEX, quantity
from consilium.simulations.guesses.words import (
    SEXES,
    YES_NO,
    known_name,
    suggests,
    unit_in,
)

NATIVE_WORDS = {"true", "false", "yes", "no"}  # that a label may be written in


def guess_tables(looks: Sequence[Look], choices: Choices) -> Tables:
    """Return guesses about some tables.

    Raises:
        SettingsError: something could mean two things, or a column that the user named is nowhere.
        DataError: these tables lack what a study needs.
    """
    _require_known(looks, choices)
    stays = _stays_among(looks, choices)
    if not stays.complete:  # every stay counts, and another table may be made of this one
        every = look_at(stays.path, choices.separator, whole=True)
        whole = next(look for look in every if look.name == stays.name)
        looks = [whole if look is stays else look for look in looks]
        stays = whole
    notes = GuessNotes()
    person = person_of(stays, choices, notes)
    if person is None:
        raise DataError(
            f"{stays.path}: no column says whose a row is; name it: --column person=NAME (if every "
            "row is one person, add a column that numbers them)"
        )
    stay = one_column(stays, "stay", [k for k in key_columns(stays) if k != person], choices, notes)
    found = Tables(stays=stays, file=str(stays.path), columns={"patient": person}, notes=notes)
    found.persons = stays.texts(person).n_unique()
    if stay is not None and not _unique(stays, stay) and _unique(stays, person):
        stay = None
    if stay is not None:
        found.columns["stay"] = stay
    key = stay or person
    if _unique(stays, key):
        _describe_stays(found, stays.frame, choices)
        others = [look for look in looks if look is not stays]
        found.events = [e for look in others if (e := events_in(look, found, choices)) is not None]
        if not found.events and others:
            raise DataError(
                f"{stays.path.parent}: beside the stays no table can be read: "
                f"{'; '.join(found.remarks[-len(others) :])[:500]}; name its columns, such as "
                "--column time=NAME or --column hours=NAME, or look at the table of stays alone"
            )
        if not found.events:
            _no_events(found, key)
    else:
        constant = _constant_columns(stays, key)
        _make_stays(found, key, constant, choices)
        one = events_in(stays, found, choices, leave=[*constant, *found.columns.values()])
        if one is None:
            raise DataError(
                f"{stays.path}: has several rows for one {key!r} and no column that says when each "
                "was; name it: --column time=NAME, or hours=NAME"
            )
        found.events = [one]
    found.remarks += [
        f"{look.name} was looked at in its first {len(look.frame)} rows"
        for look in looks
        if not look.complete
    ]
    if "start" not in found.columns and any("time" in e.columns for e in found.events):
        raise DataError(
            f"{stays.path}: events have times, and no column of the stays says when one began; "
            "name it: --column start=NAME"
        )
    if not found.quantities and not any(e.quantities for e in found.events):
        raise DataError(f"{stays.path}: no column could be a measurement; a study needs one")
    return found


def _require_known(looks: Sequence[Look], choices: Choices) -> None:
    everywhere = {name for look in looks for name in look.columns}
    for role, name in choices.columns.items():
        if role != "stays" and name not in everywhere:
            raise SettingsError(
                f"--column {role}={name}: there is no such column; there are "
                f"{', '.join(sorted(everywhere)[:20])}"
            )


def _unique(look: Look, column: str) -> bool:
    known = look.texts(column).drop_nulls()
    return known.n_unique() == len(known)


def _stays_among(looks: Sequence[Look], choices: Choices) -> Look:
    """Return the table with one row a stay, or the only table."""
    if len(looks) == 1:
        return looks[0]
    if (said := choices.columns.get("stays")) is not None:
        named = [look for look in looks if said in (look.path.name, look.sheet, look.table)]
        if len(named) != 1:
            raise SettingsError(f"--column stays={said}: there is no such table in the folder")
        return named[0]
    fitting = []
    for look in looks:
        keys = [k for k in key_columns(look) if suggests(k, "person") or suggests(k, "stay")]
        keys += [k for k in key_columns(look) if k.lower() == "id"]
        keys += [c for r, c in choices.columns.items() if r in ("person", "stay") and c in keys]
        if any(_unique(look, key) for key in keys):
            fitting.append(look)
    with_label = [
        look for look in fitting
        if choices.columns.get("label") in look.columns
        or any(suggests(name, "label") for name in look.columns)
    ]  # fmt: skip  # reads as one
    fitting = with_label if len(with_label) == 1 else fitting
    if len(fitting) != 1:
        told = (
            "no table has"
            if not fitting
            else (f"the tables {', '.join(look.name for look in fitting)} each have")
        )
        raise SettingsError(
            f"{looks[0].path.parent}: {told} one row for each stay or person; say which is the "
            "table of stays: --column stays=FILE"
        )
    return fitting[0]


def _describe_stays(found: Tables, frame: pl.DataFrame, choices: Choices) -> None:
    """Find the stays' times, label and static variables; make the table if words must go."""
    look, notes = found.stays, found.notes
    used = list(found.columns.values())
    label = label_of(look, used, choices, notes)
    if label is None:
        raise DataError(
            f"{look.path}: no column could be the outcome to predict; name it: --column label=NAME"
        )
    found.columns["label"] = label
    _times_of_stays(found, choices)
    _task(found, look, label)
    _static_variables(found, look, [n for n in look.columns if n not in found.columns.values()])
    words = {value.lower() for value in look.distinct(label)} if label not in look.numbers else ()
    if words and not set(words) <= NATIVE_WORDS:
        plain = [look.texts(name).alias(name) for name in frame.columns if name != label]
        numbers = look.texts(label).str.to_lowercase().replace_strict(dict(YES_NO), default=None)
        _write_stays(found, pl.DataFrame([*plain, numbers.cast(pl.Int64).alias(label)]))
        found.remarks.append(
            f"{STAYS} is {look.name} with numbers in column {label!r} for "
            f"{' and '.join(sorted(words))}"
        )


def _times_of_stays(found: Tables, choices: Choices) -> None:
    look = found.stays
    free = [name for name in look.times if name not in found.columns.values()]
    for role in ("start", "end", "birth"):
        if (column := one_column(look, role, free, choices, found.notes)) is not None:
            found.columns[role] = column
    roles = [r for r in ("start", "end", "birth") if r in found.columns]
    formats = {found.columns[r]: format_of(look, found.columns[r], choices) for r in roles}
    first = formats[found.columns[roles[0]]] if roles else None
    for role in roles[1:]:
        short = "%y" in (formats[found.columns[role]] or "")
        if formats[found.columns[role]] != first or (role == "birth" and short):
            column = found.columns.pop(role)
            found.remarks.append(
                f"column {column!r} ({role}) is written otherwise than the start, or with years of "
                "two digits that do not say their century, and is not used"
            )
    found.time_format = first


def _task(found: Tables, look: Look, label: str) -> None:
    """Find what kind of outcome the label is."""
    if is_binary(look, label):
        found.label = {"kind": "binary"}
        return
    if label not in look.numbers:
        raise SettingsError(
            f"{look.path}: the outcome {label!r} holds words that mean neither yes nor no; write "
            "numbers, or name another: --column label=NAME"
        )
    values = look.numbers[label].drop_nulls()
    different = sorted(values.unique().to_list())
    if different == [float(n) for n in range(len(different))] and len(different) <= MOST_CLASSES:
        found.label = {"kind": "multiclass", "outputs": len(different)}
        return
    spread = float(values.std() or 1.0)  # type: ignore[arg-type]
    center = float(values.median() or 0.0)  # type: ignore[arg-type]
    found.label = {
        "kind": "regression",
        "center": float(f"{center:.3g}"),
        "spread": float(f"{spread:.3g}"),
    }


def _static_variables(found: Tables, look: Look, columns: Sequence[str]) -> None:
    taken: set[str] = set()
    for name in columns:
        if len(found.quantities) >= MOST_VARIABLES:
            found.remarks.append(f"of the stays' columns only {MOST_VARIABLES} are variables")
            return
        if any(suggests(name, role) for role in ("label", "weak label", "split", "site", "stay")):
            found.remarks.append(f"column {name!r} is not read: it is named as no measurement is")
            continue
        words = _sexes(look, name)
        if words and known_name(name) == SEX:
            values = pl.Series([number for _, number in words])
            one = quantity(name, values, "1", taken, static=True, words=words)
        elif name in look.numbers and not numbers_rows(look.numbers[name]):
            one = quantity(name, look.numbers[name], unit_in(name), taken, static=True)
        else:
            if name not in look.times:
                found.remarks.append(f"column {name!r} is not read: it holds texts or numbers rows")
            continue
        taken.add(one.name)
        found.quantities.append(one)


def _sexes(look: Look, name: str) -> tuple[tuple[str, float], ...]:
    if name in look.numbers:
        return ()
    values = look.distinct(name)[:10]
    if not values or any(value.lower() not in SEXES for value in values):
        return ()
    return tuple((value, SEXES[value.lower()]) for value in values)


def _constant_columns(look: Look, key: str) -> list[str]:
    """Return the columns that have one value for each key."""
    texts = pl.DataFrame([look.texts(name).alias(name) for name in look.columns])
    most = texts.group_by(key).agg(pl.exclude(key).drop_nulls().n_unique()).drop(key).max()
    return [name for name in most.columns if (most[name][0] or 0) <= 1]


def _make_stays(found: Tables, key: str, constant: Sequence[str], choices: Choices) -> None:
    """Make a table of stays of a table with several rows a stay."""
    look = found.stays
    texts = pl.DataFrame([look.texts(name).alias(name) for name in look.columns])
    rows = texts.group_by(key, maintain_order=True).agg(pl.col(constant).drop_nulls().first())
    plain = {n: _first(look.numbers[n], look, key) for n in constant if n in look.numbers}
    kept = rows.with_columns(**plain)
    narrow = Look(
        path=look.path,
        frame=kept,
        numbers={n: kept[n].cast(pl.Float64) for n in kept.columns if n in look.numbers},
        times={n: _first(look.times[n], look, key) for n in constant if n in look.times},
        formats=look.formats,
        complete=look.complete,
        table=look.table,
    )
    found.stays = narrow
    found.persons = narrow.texts(found.columns["patient"]).n_unique()
    _describe_stays(found, kept, choices)
    if STAYS not in found.made:
        _write_stays(found, kept)
    found.remarks.append(
        f"{STAYS} has one row for each {key!r} of {look.name}: the columns that do not change"
    )
    found.stays = narrow


def _first(values: pl.Series, look: Look, key: str) -> pl.Series:
    """Return the first value for each key, in the order of the keys."""
    frame = pl.DataFrame([look.texts(key).alias("key"), values.alias("value")])
    rows = frame.group_by("key", maintain_order=True).agg(pl.col("value").drop_nulls().first())
    return rows["value"]


def _write_stays(found: Tables, frame: pl.DataFrame) -> None:
    found.made[STAYS], found.file = frame, STAYS


def _no_events(found: Tables, key: str) -> None:
    """Make a table of events without any, for stays that were described once."""
    look = found.stays
    found.made[EVENTS] = pl.DataFrame({key: look.texts(key), "hours": 0})
    notes = GuessNotes()
    notes.say("hours", "nothing says when values were measured: all hold from the start")
    found.events = [
        Events(
            look=None,
            file=EVENTS,
            columns={"stay": key, "hours": "hours", "layout": "wide"},
            notes=notes,
            hours=pl.Series([0.0]),
        )
    ]
    found.remarks.append(f"{EVENTS} has no measurement; every column of the stays holds throughout")
