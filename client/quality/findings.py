"""Judges the measured quality: findings, each with its remedy, and one verdict.

Findings speak of variables, counts and shares; none quotes a patient's value.
"""

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Literal

import numpy as np

from consilium.client.ledger.releases import SHARDS
from consilium.client.quality.finding import Finding, Level
from consilium.client.quality.losses import lost_rows
from consilium.client.quality.measure import Quality
from consilium.client.records.cohort import training_shards
from consilium.client.sources.common.reasons import (
    AFTER_DEATH,
    AFTER_END,
    BEFORE_START,
    BY_DAY,
    CLOCK_OF_STAYS,
    IN_FUTURE,
    MIDNIGHTS,
    NO_STAY,
    ROUGH_OUTCOME,
    SKIPPED,
    STAYS_BY_DAY,
    UNDATED_DEATH,
    UNKNOWN_UNIT,
)
from consilium.shared.export.manifest import output_names
from consilium.shared.study.definition import Study

Verdict = Literal["ready", "ready with warnings", "not ready"]

RARELY = 0.05  # share of stays below which a variable hardly helps
DRIFTED = 1.0  # reference deviations between this hospital's mean and the study's center
WRONG_UNIT = 3.0  # as DRIFTED; so far off that a wrong unit or column is the likelier reason
NARROW, WIDE = 0.1, 3.0  # bounds of this hospital's spread, in reference deviations
MANY_OUT_OF_RANGE = 0.01
MANY_SET_ASIDE = 0.01
TELLS_ALONE = 0.98  # AUROC of one variable alone: so good that it may contain the outcome
MOSTLY_UNKNOWN = 0.5  # share of codes outside the vocabulary
MANY_WINDOWLESS = 0.1
SMALL_GROUP = 10  # patients with the rarer outcome
RULES_OF_TIME: Mapping[str, tuple[Level, str]] = MappingProxyType(
    {
        MIDNIGHTS: ("warns", 'write [data] midnight = "instant" if they are times; "day" if not'),
        BY_DAY: ("warns", "bring the time of day, if it is known"),
        STAYS_BY_DAY: ("warns", "bring the time of day, if it is known"),
        SKIPPED: ("warns", "check [data] time_zone; these are read as of a clock not put forward"),
        ROUGH_OUTCOME: ("warns", "bring the day of the outcome, if it is known"),
        AFTER_DEATH: ("warns", "correct the death or the stay at the source"),
        UNDATED_DEATH: ("warns", "bring the day of the death, if it is known"),
        CLOCK_OF_STAYS: ("tells", "state [data] time_zone if the hospital's clock shows others"),
    }
)


def judge(quality: Quality, study: Study) -> tuple[Finding, ...]:
    """Return all findings, the most serious first."""
    found = [
        *_persons(quality, study),
        *_cohort(quality, study),
        *_labels(quality, study),
        *_times(quality, study),
        *_variables(quality, study),
        *_codes(quality, study),
        *_ranges(quality),
        *lost_rows(quality, study),
        *_rows(quality),
    ]
    order = {"stops": 0, "warns": 1, "tells": 2}
    return tuple(sorted(found, key=lambda finding: order[finding.level]))


def verdict(findings: tuple[Finding, ...]) -> Verdict:
    """Return *not ready* if a finding stops, *ready with warnings* if one warns, else *ready*."""
    levels = {finding.level for finding in findings}
    if "stops" in levels:
        return "not ready"
    return "ready with warnings" if "warns" in levels else "ready"


def _persons(quality: Quality, study: Study) -> Iterator[Finding]:
    if study.privacy.unit == "patient":
        return
    key = quality.read.person_key or "no key"
    yield Finding(
        level="warns",
        about="persons",
        told=f"the study counts each recording as a patient; these are put together by {key}",
        remedy="epsilon holds for each recording; approve only if that protects people enough",
    )


def _cohort(quality: Quality, study: Study) -> Iterator[Finding]:
    least = study.data.minimum_patients
    if quality.patients < least:
        yield Finding(
            level="stops",
            about="patients",
            told=f"{quality.patients} patients are below the study's minimum of {least}",
            remedy="bring more patients, or ask for a lower [data] minimum_patients",
        )
    elif (training := quality.patients * training_shards(study)[1] // SHARDS) < least:
        yield Finding(
            level="warns",
            about="patients",
            told=(
                f"about {training} of {quality.patients} patients would train and the others "
                f"validate: below the study's minimum of {least}"
            ),
            remedy="bring more patients, or ask for a lower [data] minimum_patients",
        )
    for outcome, patients in enumerate(quality.outcome_patients):
        labels = study.task.kind in ("multilabel", "survival")
        name = output_names(study)[outcome] if labels else f"outcome {outcome}"
        if patients == 0 and study.task.kind == "binary":
            yield Finding(
                level="stops",
                about=name,
                told="no patient has it, so nothing can be learned here",
                remedy=f"check how the label {study.data.label!r} is made",
            )
        elif patients < SMALL_GROUP:
            yield Finding(
                level="warns",
                about=name,
                told=f"only {patients} patients have it, fewer than {SMALL_GROUP}",
                remedy="take part for the sum's sake, but do not judge the model on this site",
            )


def _labels(quality: Quality, study: Study) -> Iterator[Finding]:
    if quality.read.unlabelled:
        share = quality.read.unlabelled / (quality.stays + quality.read.unlabelled)
        yield Finding(
            level="warns" if share > 0.1 else "tells",
            about="labels",
            told=f"{quality.read.unlabelled} stays have no label and were left out",
            remedy="complete the label, or make sure that it is missing by chance",
        )
    if quality.outcome_inside:
        yield Finding(
            level="warns",
            about="labels",
            told=(
                f"in {quality.outcome_inside} stays the outcome happened before the window of "
                f"{study.data.window_h} h ended: the model would be shown what it is to foretell"
            ),
            remedy="shorten [data] window_h",
        )
    for name, area in zip(study.variables, quality.alone_V, strict=True):
        if area > TELLS_ALONE:
            yield Finding(
                level="warns",
                about=name,
                told=f"it tells the outcome by itself (AUROC {area:.3f})",
                remedy="check that it is not recorded because of the outcome, or leave it out",
            )


def _times(quality: Quality, study: Study) -> Iterator[Finding]:
    aside = quality.read.set_aside
    events = max(1, quality.read.events)
    for reason, remedy in (
        (AFTER_END, "check the ends of stays and the clock of the events' system"),
        (BEFORE_START, "check the starts of stays and the clock of the events' system"),
        (IN_FUTURE, "check the date format; shifted dates of de-identified data are harmless"),
    ):
        number = aside.get(reason, 0)
        if number:
            grave = reason == IN_FUTURE or number > MANY_SET_ASIDE * events
            yield Finding(
                level="warns" if grave else "tells",
                about="times",
                told=f"{number} {reason}",
                remedy=remedy,
            )
    for reason, number in quality.read.times.items():
        level, remedy = RULES_OF_TIME[reason]
        yield Finding(level=level, about="times", told=f"{number} {reason}", remedy=remedy)
    if quality.windowless:
        share = quality.windowless / max(1, quality.read.stays)
        yield Finding(
            level="warns" if share > MANY_WINDOWLESS else "tells",
            about="windows",
            told=f"{quality.windowless} of {quality.read.stays} stays have no window",
            remedy="say in site.toml when outcomes happened and stays ended, if the records know",
        )
    late = np.flatnonzero(quality.observed_T < 0.5 * quality.stays)
    if len(late):
        hour, window_h = int(late[0]) * study.data.step_h, study.data.window_h
        yield Finding(
            level="tells",
            about="times",
            told=f"fewer than half of the stays last {hour} h of the window's {window_h}",
            remedy="consider a shorter [data] window_h",
        )


def _variables(quality: Quality, study: Study) -> Iterator[Finding]:
    never = [
        name for name, share in zip(study.variables, quality.present_V, strict=True) if share == 0
    ]
    if len(never) > len(study.variables) / 2:
        yield Finding(
            level="stops",
            about="variables",
            told=f"{len(never)} of {len(study.variables)} variables were never measured",
            remedy="say in site.toml, [data.variables], how this hospital names them",
        )
    for index, (name, variable) in enumerate(study.variables.items()):
        share = quality.present_V[index]
        if share == 0:
            yield Finding(
                level="warns",
                about=name,
                told="it was never measured",
                remedy=f"say its codes in site.toml, [data.variables.{name}], if it is",
            )
            continue
        if share < RARELY:
            yield Finding(
                level="tells",
                about=name,
                told=f"it was measured in {100 * share:.1f} % of stays",
                remedy="check that all of its codes are in site.toml",
            )
        yield from _range(quality, index, name)
        mean, deviation = quality.score_mean_V[index], quality.score_deviation_V[index]
        if abs(mean) > DRIFTED:
            far = abs(mean) > WRONG_UNIT
            yield Finding(
                level="warns",
                about=name,
                told=(
                    f"patients' mean lies {abs(mean):.1f} reference deviations "
                    f"{'above' if mean > 0 else 'below'} the study's center "
                    f"{variable.center:g} {variable.unit}"
                ),
                remedy=(
                    "check unit and codes in site.toml first"
                    if far
                    else "check the unit; a case mix of its own is no fault"
                ),
            )
        if deviation == 0:
            yield Finding(
                level="tells",
                about=name,
                told="all patients have one and the same value",
                remedy="nothing, if what counts is whether it was measured; else check its words",
            )
        elif not NARROW < deviation < WIDE and variable.role == "series":
            yield Finding(
                level="warns",
                about=name,
                told=f"patients differ by {deviation:.2f} of the study's reference spread",
                remedy="check that the values are measured, and in one unit",
            )


def _codes(quality: Quality, study: Study) -> Iterator[Finding]:
    if study.tokens is None:
        return
    names = ", ".join(study.tokens.names)
    share = quality.unknown_codes / max(1, quality.codes)
    if quality.codes == 0:
        yield Finding(
            level="stops" if not study.variables else "warns",
            about=names,
            told="there is not a single code",
            remedy="say in site.toml where the codes stand",
        )
    elif share > MOSTLY_UNKNOWN:
        yield Finding(
            level="warns",
            about=names,
            told=f"{100 * share:.0f} % of the codes are outside the study's vocabulary",
            remedy="check that this hospital codes in the system that [tokens] vocabulary means",
        )


def _range(quality: Quality, index: int, name: str) -> Iterator[Finding]:
    kept = int(quality.histogram_VB[index].sum())
    out = quality.read.out_of_range.get(name, 0)
    mended = quality.read.repaired.get(name, 0)
    if out > MANY_OUT_OF_RANGE * (kept + out):
        yield Finding(
            level="warns",
            about=name,
            told=f"{100 * out / (kept + out):.1f} % of its values lie outside the study's range",
            remedy="check unit and artefacts; the study says whether they are dropped or clipped",
        )
    if mended > max(SMALL_GROUP, MANY_OUT_OF_RANGE * kept):
        yield Finding(
            level="warns",
            about=name,
            told=f"{mended} values were slips of unit and were mended",
            remedy="state the unit of each row, or correct the records",
        )


def _ranges(quality: Quality) -> Iterator[Finding]:
    """Yield what was out of range or repaired in few values, over all variables together."""
    for counts, told, remedy in (
        (quality.read.out_of_range, "lie outside the study's range", "nothing, if they are few"),
        (quality.read.repaired, "were slips of unit and were mended", "nothing, if they are few"),
    ):
        if counts:
            yield Finding(
                level="tells",
                about="ranges",
                told=f"{sum(counts.values())} values of {len(counts)} variables {told}",
                remedy=remedy,
            )


def _rows(quality: Quality) -> Iterator[Finding]:
    read = quality.read
    told_already = {AFTER_END, BEFORE_START, IN_FUTURE, UNKNOWN_UNIT}
    for reason, number in read.set_aside.items():
        if reason in told_already:
            continue
        many = number > MANY_SET_ASIDE * max(1, read.events)
        yield Finding(
            level="warns" if many and reason != NO_STAY else "tells",
            about="rows",
            told=f"{number} {reason}",
            remedy=(
                "nothing, if the tables hold other patients too"
                if reason == NO_STAY
                else "correct them at the source, if there are many"
            ),
        )
    if read.duplicates:
        many = read.duplicates > 0.1 * max(1, read.events)
        yield Finding(
            level="warns" if many else "tells",
            about="rows",
            told=f"{read.duplicates} values stand beside another of the same time; the last counts",
            remedy="remove repeated rows, if there are many",
        )
    if read.outside_window:
        yield Finding(
            level="tells",
            about="rows",
            told=f"{read.outside_window} values or places lie outside the study's window",
            remedy="nothing, if stays are longer than [data] window_h",
        )
    if quality.empty:
        yield Finding(
            level="warns" if quality.empty > 0.05 * quality.stays else "tells",
            about="stays",
            told=f"{quality.empty} stays have no measurement at all in the window",
            remedy="check identifiers and times of the tables, or leave such stays out",
        )
    if read.skipped:
        yield Finding(
            level="warns",
            about="files",
            told=f"{len(read.skipped)} files could not be read and were skipped",
            remedy='mend them; with on_bad_file = "refuse" the first is named',
        )
