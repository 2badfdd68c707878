import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from consilium.client.sources.common import cleaning
from consilium.client.sources.common.cleaning import Cleaner
from consilium.client.sources.common.source import Tally
from consilium.shared.study.definition import Study, parse_study

BASE = """
name = "tiny"
title = "tiny"
rounds = 1
sites = ["a", "b", "c"]
[data]
source = "physionet2012"
label = "In-hospital_death"
window_h = 24
on_out_of_range = "%s"
[variables]
Temp = { unit = "Cel", low = 25, high = 45, center = 37, spread = 1 }
pH = { unit = "[pH]", low = 6.5, high = 8, center = 7.4, spread = 0.1 }
Height = { unit = "cm", low = 120, high = 230, center = 170, spread = 10, role = "static" }
HR = { unit = "/min", low = 10, high = 300, center = 85, spread = 18 }
"""
DROP, CLIP = (parse_study(BASE % word) for word in ("drop", "clip"))


def clean(study: Study, *events: tuple[float, int, float]) -> tuple[list, Tally]:
    tally = Tally()
    columns = list(zip(*events, strict=True)) or [(), (), ()]
    types = (np.float32, np.int16, np.float32)
    arrays = [np.array(column, dtype=kind) for column, kind in zip(columns, types, strict=True)]
    kept = Cleaner(study, tally).clean(*arrays)
    return [tuple(map(float, row)) for row in zip(*kept, strict=True)], tally


@given(
    st.lists(
        st.tuples(st.floats(-5, 30, width=32), st.integers(0, 3), st.floats(-1e4, 1e4, width=32)),
        max_size=60,
    ),
    st.sampled_from([DROP, CLIP]),
)
def test_what_is_kept_is_in_range_in_the_window_sorted_and_unique(
    events: list[tuple[float, int, float]], study: Study
) -> None:
    kept, tally = clean(study, *events)
    specs = list(study.variables.values())
    assert all(specs[int(v)].low <= x <= specs[int(v)].high for _, v, x in kept)
    assert all(0 <= hours <= 24 for hours, _, _ in kept)
    keys = [(hours, variable) for hours, variable, _ in kept]
    assert keys == sorted(set(keys))
    dropped = sum(tally.out_of_range.values()) if study is DROP else 0
    assert len(events) == len(kept) + tally.outside_window + tally.duplicates + dropped
    assert tally.events == len(kept)


def test_of_two_values_at_one_time_the_last_is_kept() -> None:
    kept, tally = clean(DROP, (1, 3, 80), (2, 3, 90), (1, 3, 70))
    assert kept == [(1, 3, 70), (2, 3, 90)]
    assert tally.duplicates == 1


@pytest.mark.parametrize(
    ("variable", "given_value", "meant"),
    [(0, 98.6, 37.0), (1, 735, 7.35), (1, 73.5, 7.35), (2, 1.8, 180), (2, 70, 177.8),
     (2, 431.8, 170)],
)  # fmt: skip  # one pair a column reads as a table
def test_slips_of_unit_are_repaired_and_counted(
    variable: int, given_value: float, meant: float
) -> None:
    kept, tally = clean(DROP, (0, variable, given_value))
    assert kept[0][2] == pytest.approx(meant, rel=1e-5)
    assert sum(tally.repaired.values()) == 1
    assert not tally.out_of_range


def test_out_of_range_values_are_dropped_or_clipped_as_the_study_says() -> None:
    kept, tally = clean(DROP, (0, 3, 301), (1, 3, 80))
    assert kept == [(1, 3, 80)]
    assert tally.out_of_range == {"HR": 1}
    kept, tally = clean(CLIP, (0, 3, 301), (1, 3, 80))
    assert kept == [(0, 3, 300), (1, 3, 80)]
    assert tally.out_of_range == {"HR": 1}


def test_the_end_of_the_window_belongs_to_it() -> None:
    kept, tally = clean(DROP, (24, 3, 80), (24.1, 3, 80))
    assert kept == [(24, 3, 80)]
    assert tally.outside_window == 1


@pytest.mark.parametrize("bits", [64, 32], ids=["one number each", "too large for one number"])
@pytest.mark.parametrize("farthest", [1, 3, 70_000, 2**31 - 1])
def test_events_come_by_stay_hour_and_variable_and_ties_in_the_order_of_the_file(
    bits: int, farthest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cleaning, "_BITS", bits)
    stream = np.random.default_rng(3)
    stay_E = stream.choice(np.array([0, 1, farthest // 2, farthest], dtype=np.int32), 3000)
    hours_E = stream.choice(np.array([0, 0.5, 1e-30, 7, 48, -0.0], dtype=np.float32), 3000)
    variable_E = stream.integers(0, 5, 3000).astype(np.int16)
    order_E = cleaning._order(stay_E, hours_E, variable_E)
    assert order_E.tolist() == np.lexsort((variable_E, hours_E, stay_E)).tolist()
