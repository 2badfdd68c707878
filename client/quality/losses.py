"""Findings about rows that were lost: how many of which variable, and guesses at the reason.

A guess is told as one; nothing is read differently because of it.
"""

from collections.abc import Iterator

import numpy as np

from consilium.client.quality.finding import Finding, Level
from consilium.client.quality.funnel import Funnel, funnels
from consilium.client.quality.measure import Quality
from consilium.client.sources.common.door import MANY_LOST, units_line
from consilium.client.sources.common.reasons import (
    AFTER_END,
    BEFORE_START,
    BLANKS,
    DAYS,
    DECIMAL_COMMA,
    DOT_ZERO,
    LOSSES,
    MINUTES,
    SHIFTED,
    STAGE_NO_NUMBER,
    STAGE_NO_STAY,
    STAGE_NO_TIME,
    STAGE_OUT_OF_RANGE,
    STAGE_OUTSIDE_STAY,
    STAGE_UNKNOWN_UNIT,
    THOUSANDS,
    TIMED,
)
from consilium.shared.study.definition import Study

MOSTLY = 0.9  # share of the odd rows that a guess has to explain
FEWEST_TO_GUESS = 20  # rows; fewer are no pattern
MOST_SHOWN = 8  # spellings quoted in one finding; the block holds all
_REMEDIES = {
    STAGE_NO_TIME: "name the right column of times, or complete them",
    STAGE_NO_NUMBER: "say what words mean (values), or how numbers are written",
    STAGE_UNKNOWN_UNIT: "say what the units mean, in [data] units",
    STAGE_NO_STAY: "nothing, if the tables hold other patients too; else compare the identifiers",
    STAGE_OUTSIDE_STAY: "check starts and ends of stays, and the clock of the events' system",
    STAGE_OUT_OF_RANGE: "check unit and artefacts",
}


def lost_rows(quality: Quality, study: Study) -> Iterator[Finding]:
    """Yield all findings about rows that were lost."""
    if quality.read.counts_rows:
        yield from _losses(quality, study)
    else:
        yield from _uncounted(quality, study)
    yield from _units(quality)
    yield from _commas(quality)
    yield from _hours(quality)
    yield from _zones(quality)
    yield from _identifiers(quality)
    yield from _absent(quality)
    yield from _opted_out(quality)


def _losses(quality: Quality, study: Study) -> Iterator[Finding]:
    """Yield each variable of which more than 5 % of the rows were lost, and where."""
    for funnel in funnels(quality.read, study):
        if funnel.of_others > MOSTLY * (funnel.found + funnel.of_others):
            yield Finding(
                level="warns",
                about=funnel.name,
                told=(
                    f"{funnel.of_others} of its {funnel.found + funnel.of_others} rows name no "
                    "person who has a stay in the cohort"
                ),
                remedy="nothing, if they are of others; else compare how persons are written",
            )
        if funnel.lost_share <= MANY_LOST:
            continue
        stages = [
            f"{number} {stage}" for stage, number in zip(LOSSES, funnel.lost, strict=True) if number
        ]
        yield Finding(
            level="warns",
            about=funnel.name,
            told=(
                f"{100 * funnel.lost_share:.0f} % of its {funnel.found} rows were lost: "
                f"{', '.join(stages)}"
            ),
            remedy=_REMEDIES[_worst(funnel)],
        )


def _uncounted(quality: Quality, study: Study) -> Iterator[Finding]:
    """Tell that a source does not count what it leaves out, and what it gave."""
    kept = ", ".join(f"{funnel.kept} of {funnel.name}" for funnel in funnels(quality.read, study))
    yield Finding(
        level="tells",
        about="rows",
        told=f"this source does not count the rows that it leaves out; those kept are {kept}",
        remedy="ask who wrote it for a funnel, or compare with the system's own counts",
    )


def _worst(funnel: Funnel) -> str:
    return LOSSES[int(np.argmax(funnel.lost))]


def _units(quality: Quality) -> Iterator[Finding]:
    """Yield what was not understood of the units; it stops if it is much of a variable."""
    unknown, read = quality.read.unknown_units, quality.read
    if not unknown:
        return
    rows: dict[str, int] = {}
    for one in unknown:
        rows[one.variable] = rows.get(one.variable, 0) + one.rows
    many = any(number > MANY_LOST * max(1, read.rows(name)) for name, number in rows.items())
    shown = [one for one in sorted(unknown, key=lambda one: -one.rows) if one.unit != ""]
    told = [f"{sum(rows.values())} rows are in units that are not understood"]
    told += [
        ", ".join(
            f"{'none' if one.unit is None else repr(one.unit)} ({one.variable}, {one.rows} rows)"
            for one in shown[:MOST_SHOWN]
        )
    ]
    if len(shown) > MOST_SHOWN:
        told.append(f"and {len(shown) - MOST_SHOWN} more")
    if rare := len(unknown) - len(shown):
        told.append(f"{rare} not shown, as fewer than 10 rows have them")
    unstated = sorted({one.variable for one in unknown if one.unit is None})
    remedies = [f'[data.variables.{name}] unit = "..."' for name in unstated[:MOST_SHOWN]]
    if line := units_line(unknown):
        remedies.append(f"{line} under [data] of site.toml, each ? replaced by what it means")
    yield Finding(
        level="stops" if many else "warns",
        about="units",
        told="; ".join(filter(None, told)),
        remedy=" and ".join(remedies)
        or "correct the unit in site.toml, or the column that holds it",
    )


def _guess(told: str, remedy: str, level: Level = "warns") -> Finding:
    return Finding(level=level, about="a guess", told=told, remedy=remedy)


def _commas(quality: Quality) -> Iterator[Finding]:
    clues = quality.read.clues
    if number := clues.get(DECIMAL_COMMA, 0):
        yield _guess(
            f"{number} {DECIMAL_COMMA} were taken for words and lost",
            "write decimal_comma = true in that file's table of site.toml",
        )
    if number := clues.get(THOUSANDS, 0):
        yield _guess(
            f"{number} {THOUSANDS} (or a decimal comma before three digits) were lost",
            "write them without, or say decimal_comma = true: 1,234 has two meanings",
        )


def _hours(quality: Quality) -> Iterator[Finding]:
    """Guess another unit of hours from the stays in which events lie, or would lie."""
    timed, minutes, days = (quality.read.clues.get(what, 0) for what in (TIMED, MINUTES, DAYS))
    if minutes >= FEWEST_TO_GUESS and minutes > (timed - minutes):
        yield _guess(
            f"{minutes} of {timed} {MINUTES}",
            'write hours_unit = "min" beside hours, if they are minutes',
        )
    if timed >= FEWEST_TO_GUESS and days == timed:
        yield _guess(
            f"all {timed} events with hours lie in the first 24th of their stay, as if their hours "
            "were days",
            'write hours_unit = "d" beside hours, if they are days',
            "tells",
        )


def _zones(quality: Quality) -> Iterator[Finding]:
    read = quality.read
    outside = read.set_aside.get(AFTER_END, 0) + read.set_aside.get(BEFORE_START, 0)
    shifted = read.clues.get(SHIFTED, 0)
    if outside <= MANY_LOST * (read.events + outside) or outside < FEWEST_TO_GUESS:
        return
    if shifted > MOSTLY * outside:
        yield _guess(
            f"{shifted} events lie at most 14 h before or after their stay, as if their clock had "
            "another time zone",
            "check the zones of both tables, and [data] time_zone",
        )


def _identifiers(quality: Quality) -> Iterator[Finding]:
    for what, told in (
        (BLANKS, "they were read without"),
        (DOT_ZERO, "they were read as whole numbers"),
    ):
        if number := quality.read.clues.get(what, 0):
            remedy = "nothing, or export them as text, the same in every file"
            yield _guess(f"{number} {what}; {told}", remedy, "tells")


def _absent(quality: Quality) -> Iterator[Finding]:
    for name in quality.read.absent:
        yield Finding(
            level="warns",
            about="files",
            told=f"there is no {name}, of which a variable's codes ask for records",
            remedy="export that type, too; what is not recorded counts as not having happened",
        )


def _opted_out(quality: Quality) -> Iterator[Finding]:
    if quality.read.opted_out is None:
        return
    left, named = quality.read.opted_out
    nobody = named > 0 and left == 0
    yield Finding(
        level="warns" if nobody else "tells",
        about="opted out",
        told=f"{left} persons were left out, of {named} whom the file of those who opted out names",
        remedy=(
            "check that the file writes persons as these records do, if they should be among them"
            if nobody
            else "nothing; they are in no count here but those of rows lost"
        ),
    )
