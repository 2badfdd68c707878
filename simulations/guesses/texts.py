"""The two texts that are written: a study, and settings of its records, every guess commented."""

from collections.abc import Mapping, Sequence

import polars as pl

from consilium.shared.study.dictionary import Variable
from consilium.simulations.cohorts.partitions import TEST_SHARE
from consilium.simulations.cohorts.study_sites import site_name
from consilium.simulations.guesses.found import Events, Tables
from consilium.simulations.guesses.look import Look
from consilium.simulations.guesses.toml_text import key_text, line, remark, value_text
from consilium.simulations.guesses.variables import Quantity

WRITTEN = "Written by 'consilium-simulate init', which guessed: correct every line marked so."
_STEPS = 60  # of a window at most, as far as guessed
_LONGEST_H = 24 * 365
USUAL_MINIMUM = 20


def study_head(
    name: str, title: str, *, persons: int, data: Sequence[str], task: Sequence[str]
) -> list[str]:
    """Return a study up to its variables.

    Args:
        name: of the file that was looked at; the study's name is made of it.
        title: of the study.
        persons: in the records; with few there are fewer sites, and less is asked of each.
        data: lines of ``[data]``.
        task: lines of ``[task]``.
    """
    sites = 4 if persons >= 100 else 3
    each = int(persons * (1 - TEST_SHARE) / sites)
    minimum = []
    if each < 2 * USUAL_MINIMUM:
        told = f"# guess: lower than {USUAL_MINIMUM}, as there are {persons} persons in all"
        minimum = [line("minimum_patients", max(1, min(USUAL_MINIMUM, each // 2)), told)]
    return [
        remark(WRITTEN),
        remark("A study for hospitals needs more: docs/studies.md has every key."),
        "schema = 2",
        line("name", site_name(name) or "study", "# guess: of the file's name"),
        line("title", title, "# guess: say what it is about"),
        "rounds = 20",
        "seed = 1",
        line("sites", [f"site-{n}" for n in range(1, sites + 1)],
             "# guess: made-up sites, to which a hash deals persons"),
        "",
        "[data]",
        *data,
        *minimum,
        "",
        "[task]",
        *task,
        "",
        "[model]",
        'cell = "gru"',
        "hidden = 8",
        "skip = true",
        "",
        "[training]",
        "local_steps = 1",
        "sampling_rate = 0.25",
        "learning_rate = 1.0",
        "",
        remark("Persons' privacy; a smaller epsilon protects more and is noisier."),
        "[privacy]",
        'mode = "distributed"',
        "epsilon = 8.0",
        "delta = 1e-5",
        "",
        "[aggregation]",
        'strategy = "fedadam"',
        "server_learning_rate = 0.02",
        "max_weight = 10000",
        "",
    ]  # fmt: skip  # reads as the file


def tables_study(found: Tables, name: str) -> str:
    """Return the study of guessed tables."""
    label = found.columns["label"]
    window, step, why = _window(found.events)
    data = [
        'source = "hospital"',
        line("label", label, found.notes.of("label")),
        line("window_h", window, why),
        line("step_h", step, "# guess: so that there are not more steps than a model needs"),
    ]
    task = [line("kind", found.label["kind"], "# guess: by the outcome's values")]
    task += [line(k, v, "# guess: of these records") for k, v in found.label.items() if k != "kind"]
    lines = study_head(name, f"To predict {label}", persons=found.persons, data=data, task=task)
    lines += [
        remark("A study for hospitals takes center and spread from the literature, and reads not "
               "what is known only after the outcome."),
        "[variables]",
    ]  # fmt: skip  # reads as the file
    lines += variable_lines(_quantities(found))
    return "\n".join(lines) + "\n"


def variable_lines(quantities: Sequence[Quantity]) -> list[str]:
    """Return the study's lines of variables."""
    return [
        f"{key_text(one.name)} = {_declared(one.declaration)}  # guess: {' '.join(one.why.split())}"
        for one in quantities
    ]


def tables_records(found: Tables) -> str:
    """Return the settings of guessed tables."""
    notes, stays, columns = found.notes, found.stays, dict(found.columns)
    label = columns.pop("label")
    made = found.file in found.made
    lines = [
        remark(WRITTEN),
        remark("docs/data.md has the keys of [data], docs/own-records.md the others."),
        *map(remark, found.remarks),
        "[data]",
        *_source(found),
        *_clock(found),
        "",
        "[data.stays]",
        *([] if stays.table is not None else [line("file", found.file)]),
        *_written(stays, made=made),
        *([] if found.time_format is None
          else [line("time_format", found.time_format, "# guess: by the values")]),
    ]  # fmt: skip  # reads as the file
    of = {"patient": "person"}
    lines += [line(role, name, notes.of(of.get(role, role))) for role, name in columns.items()]
    lines.append(line("label", label, notes.of("label")))
    for events in found.events:
        several = len(found.events) > 1
        lines += _events_table(events, made=events.file in found.made, several=several)
    for one in _quantities(found):
        lines += _variable_table(one, found)
    lines += ["", "[test]", line("fraction", TEST_SHARE, "# guess: a fifth of the persons")]
    lines += ["", remark("To deal persons out by a column of the stays instead of a hash:")]
    lines += [remark("[sites]"), *_site_columns(found)]
    return "\n".join(lines) + "\n"


def _quantities(found: Tables) -> list[Quantity]:
    """Return every variable once."""
    every = [*found.quantities, *(one for events in found.events for one in events.quantities)]
    return list({one.name: one for one in reversed(every)}.values())[::-1]


def _declared(variable: Variable) -> str:
    content: Mapping[str, object] = variable.model_dump(exclude_defaults=True)
    return value_text(dict(content.items()))


def _window(events: Sequence[Events]) -> tuple[int, int, str]:
    """Return window, step and the comment: up to the hour before which most events lie."""
    hours = [one.hours.drop_nulls().cast(pl.Float64) for one in events if len(one.hours)]
    joined = pl.concat(hours) if hours else pl.Series([], dtype=pl.Float64)
    if not len(joined):
        return 48, 1, "# guess: two days"
    last = float(joined.quantile(0.9) or 0.0)
    window = min(_LONGEST_H, max(1, int(last) + 1))
    step = max(1, -(-window // _STEPS))
    window = min(_LONGEST_H, -(-window // step) * step)
    return window, step, "# guess: nine of ten events lie in so many hours from the start"


def _written(look: Look, *, made: bool) -> list[str]:
    if made:
        return []
    lines = []
    if look.table is not None:
        lines.append(line("table", look.table))
    if look.sheet is not None:
        lines.append(line("sheet", look.sheet))
    if look.encoding is not None:
        lines.append(line("encoding", look.encoding, "# guess: it is no UTF-8"))
    if look.separator not in (None, ","):
        lines.append(line("separator", look.separator, "# guess: it cuts every line alike"))
    if look.decimal_comma:
        lines.append(
            line("decimal_comma", True, "# guess: some numbers have a comma, none a point")
        )
    return lines


def _source(found: Tables) -> list[str]:
    if found.stays.table is None:
        return ['source = "tables"']
    return ['source = "sql"', line("file", str(found.stays.path))]


def _clock(found: Tables) -> list[str]:
    timed = "start" in found.columns or any("time" in events.columns for events in found.events)
    asked = 'asked: the clock of times without an offset, such as time_zone = "Europe/Berlin"'
    return [remark(asked)] if timed else []


def _events_table(events: Events, *, made: bool, several: bool) -> list[str]:
    look, notes = events.look, events.notes
    lines = ["", "[[data.events]]"]
    if look is None or look.table is None:
        lines.append(line("file", events.file))
    if look is not None:
        lines += _written(look, made=made)
    if events.time_format is not None:
        lines.append(line("time_format", events.time_format, "# guess: by the values"))
    why = {"stay": "# guess: the key of the stays", "patient": "# guess: the person"}
    why["layout"] = "# guess: a column for each variable"
    for role, name in events.columns.items():
        lines.append(line(role, name, why.get(role) or notes.of(role)))
    if events.hours_unit != "h":
        lines.append(line("hours_unit", events.hours_unit, notes.of("hours_unit")))
    if several and events.columns.get("layout") == "wide":
        here = [one.name for one in events.quantities]
        lines.append(line("variables", here, "# guess: these columns are variables"))
    if events.unused:
        shown = ", ".join(events.unused[:20]) + (" ..." if len(events.unused) > 20 else "")
        lines.append(remark(f"not read: {shown}"))
    return lines


def _variable_table(one: Quantity, found: Tables) -> list[str]:
    """Return where the records keep a variable."""
    wide = one.static or any(
        one in events.quantities and events.columns.get("layout") == "wide"
        for events in found.events
    )
    lines = ["", f"[data.variables.{key_text(one.name)}]"]
    lines.append(line("column", one.source) if wide else line("codes", [one.source]))
    if one.values:
        lines.append(line("values", dict(one.values), "# guess: these words"))
    else:
        lines.append(line("unit", one.unit, "# guess: of rows that do not say one"))
    return lines


def _site_columns(found: Tables) -> list[str]:
    from consilium.simulations.guesses.words import suggests

    columns = [name for name in found.stays.columns if suggests(name, "site")]
    if not columns:
        return [remark('column = "NAME"')]
    told = ((name, len(found.stays.distinct(name))) for name in columns)
    return [remark(f"{line('column', name)}  # {number} values") for name, number in told]
