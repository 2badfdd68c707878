"""To which stays an event belongs, and at which hour it counts, against a slow rule."""

from collections import Counter

import numpy as np
import polars as pl
from hypothesis import example, given, settings
from hypothesis import strategies as st

from consilium.client.sources.common.reasons import (
    AFTER_END,
    AROUND_END,
    MIDNIGHTS,
    NO_STAY,
    STAGE_NO_STAY,
    STAGE_OUTSIDE_STAY,
)
from consilium.client.sources.common.source import Tally
from consilium.client.sources.own.patients.assembly import Assembler
from consilium.client.sources.own.patients.event_times import EventTimes
from consilium.client.sources.own.patients.stay_frames import stay_table
from consilium.client.sources.own.patients.stay_table import StayTable
from consilium.client.sources.own.times.spans import US_PER_DAY, US_PER_HOUR
from consilium.shared.study.definition import with_changes
from tests.client.sources.cohort_formats import STUDY
from tests.client.sources.own.tables.test_tables import only

HR = with_changes(only(STUDY, "HR"), data={"window_h": 480})  # beyond all hours drawn below
PEOPLE, EVENTS = 4, 60


def cohort_table(cohort: list[tuple[int, int, int | None]], tally: Tally) -> StayTable:
    frame = pl.DataFrame(
        [(f"p{p}", str(n), start * US_PER_HOUR, None if end is None else end * US_PER_HOUR, 0.0)
         for n, (p, start, end) in enumerate(cohort)],
        schema={"patient": pl.String, "stay": pl.String, "start": pl.Int64, "end": pl.Int64,
                "label": pl.Float64},
        orient="row",
    )  # fmt: skip  # a row, and its schema
    return stay_table(frame, HR, tally, where="here")


def stays(stream: np.random.Generator) -> list[tuple[int, int, int | None]]:
    """Patients, starts and ends in hours; about one in four has no end."""
    found = []
    for _ in range(int(stream.integers(1, 12))):
        start = int(stream.integers(0, 240))
        end = start + int(stream.integers(0, 120)) if stream.random() < 0.75 else None
        found.append((int(stream.integers(0, PEOPLE)), start, end))
    return found


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1))
@example(34)  # an event known to the day, 403 hours after the start
def test_an_event_counts_in_every_stay_that_holds_it_and_never_before_it_was_known(
    seed: int,
) -> None:
    stream = np.random.default_rng(seed)
    cohort, tally = stays(stream), Tally()
    table = cohort_table(cohort, tally)
    people = [int(name[1:]) for name in table.patient_ids]
    person_E = stream.choice(people, EVENTS)
    first_E = stream.integers(-10, 380, EVENTS)
    until_E = first_E + 24 * stream.integers(0, 2, EVENTS)
    # The slow rule, event by event and stay by stay.
    expected, aside = Counter[tuple[str, float, int]](), Counter[str]()
    for number, (person, first, until) in enumerate(zip(person_E, first_E, until_E, strict=True)):
        begun = held = counts = 0
        for stay, (patient, start, end) in enumerate(cohort):
            later = [s for p, s, _ in cohort if p == patient and s > start]
            last = (min(later) - 1e-6 if later else np.inf) if end is None else end
            if patient != person or not (start <= until if first == until else start < until):
                continue
            begun += 1
            if not (first <= last if first == until else first < last):
                continue
            held += 1
            if end is None or until <= end:
                counts += 1
                expected[str(stay), float(until - start), number] += 1
        # A row that counts somewhere is not set aside, and another is told once.
        aside[AROUND_END if held else AFTER_END if begun else NO_STAY] += not counts
    assembler = Assembler(HR, table, tally)
    zero_E = np.zeros(EVENTS, dtype=np.int16)
    index = {name: at for at, name in enumerate(table.patient_ids)}
    assembler.add_timed(
        EventTimes(first_E=first_E * US_PER_HOUR, until_E=until_E * US_PER_HOUR),
        zero_E,
        np.arange(20, 20 + EVENTS).astype(np.float32),
        patient_E=np.array([index[f"p{person}"] for person in person_E], dtype=np.int32),
    )
    found = Counter[tuple[str, float]]()
    for patient in assembler.patients():
        for stay in patient.stays:
            found.update((stay.stay_id, float(hour)) for hour in stay.hours_E)
    # Of several values at one hour of a stay the last is kept, and the others are counted.
    assert found == Counter({(stay, hour) for stay, hour, _ in expected})
    assert tally.duplicates == expected.total() - found.total()
    open_ended = sum(end is None for _, _, end in cohort)
    for reason in (AROUND_END, NO_STAY):
        assert tally.set_aside.get(reason, 0) == aside[reason]
    assert sum(tally.funnel["HR"].values()) == EVENTS
    told = tally.funnel["HR"]
    assert told.get(STAGE_OUTSIDE_STAY, 0) == aside[AROUND_END] + aside[AFTER_END]
    assert told.get(STAGE_NO_STAY, 0) == aside[NO_STAY]
    if not open_ended:
        assert tally.set_aside.get(AFTER_END, 0) == aside[AFTER_END]


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0, 12]))
def test_every_row_is_counted_once_whatever_its_midnights_mean(seed: int, midnights: int) -> None:
    stream = np.random.default_rng(seed)
    tally = Tally()
    table = cohort_table(stays(stream), tally)
    hour_E = stream.integers(-10, 380, EVENTS)
    hour_E[:midnights] = 24 * (hour_E[:midnights] // 24)
    hour_E[midnights:] += hour_E[midnights:] % 24 == 0
    if not midnights:
        hour_E[:3] = 24  # too few to stand for their days
    time_E = hour_E * US_PER_HOUR
    assembler = Assembler(HR, table, tally)
    assembler.add_timed(
        EventTimes(
            first_E=time_E,
            until_E=time_E,
            clock_E=time_E,
            next_day=lambda clock_E: clock_E + US_PER_DAY,
            column="taken",
        ),
        np.zeros(EVENTS, dtype=np.int16),
        np.arange(20, 20 + EVENTS).astype(np.float32),
        patient_E=stream.integers(0, len(table.patient_ids), EVENTS).astype(np.int32),
    )
    list(assembler.patients())
    assert sum(tally.funnel["HR"].values()) == EVENTS
    assert tally.times.get(MIDNIGHTS, 0) in (0, midnights)
