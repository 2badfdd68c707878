"""Windows that end before an event or at landmarks: by hand, and never a thing from the future."""

import csv
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from consilium.client.commands.review import review_lines
from consilium.client.quality.findings import judge
from consilium.client.quality.measure import check_quality
from consilium.client.records.features import to_grid, to_tensors
from consilium.client.records.windows import cut_for_scoring, cut_windows, read_windows
from consilium.client.sources.common.settings import DataSettings
from consilium.client.sources.common.source import Patient, ReadReport, Stay, Tally
from consilium.client.sources.registry import open_source, read_data_settings
from consilium.shared.errors import DataError, StudyError
from consilium.shared.export.manifest import window_of
from consilium.shared.model.normalisation import Normalisation
from consilium.shared.study.definition import Study, parse_study, with_changes
from consilium.shared.study.input_names import feature_names

TEXT = """
name = "windows"
title = "Windows"
rounds = 1
sites = ["a", "b", "c"]
[data]
source = "hospital"
label = "died"
window_h = 4
minimum_patients = 2
{windows}
[variables]
Age = {{ unit = "a", low = 15, high = 120, center = 60, spread = 10, role = "static" }}
HR = {{ unit = "/min", low = 10, high = 300, center = 80, spread = 20 }}
"""
LANDMARKS = "[data.landmarks]\nevery_h = 3\nhorizon_h = 5\n"
BEFORE = "[data.before_event]\ngap_h = 2\n"
AFTER = '[data.after_event]\nvariable = "HR"\nleast = 90\n'
AGE, HR = 0, 1


def study_of(windows: str) -> Study:
    return parse_study(TEXT.format(windows=windows))


ROLLING, ALIGNED, BEGUN = study_of(LANDMARKS), study_of(BEFORE), study_of(AFTER)


def stay(
    *events: tuple[float, int, float],
    label: float = 0.0,
    end_h: float | None = None,
    outcome_h: float | None = None,
) -> Stay:
    hours, variables, values = zip(*events, strict=True) if events else ((), (), ())
    return Stay(
        stay_id="s",
        hours_E=np.array(hours, dtype=np.float32),
        variable_E=np.array(variables, dtype=np.int16),
        value_E=np.array(values, dtype=np.float32),
        label=label,
        end_h=end_h,
        outcome_h=outcome_h,
    )


def windows_of(one: Stay, study: Study) -> tuple[Stay, ...]:
    return next(iter(cut_windows([Patient(patient_id="p", stays=(one,))], study))).stays


# Died after 13.5 h: landmarks at 3, 6, 9 and 12 h; death lies within 5 h of the last two.
DYING = stay(
    (0, AGE, 70),
    (1, HR, 60),
    (5, HR, 80),
    (6, HR, 100),
    (8.5, HR, 120),
    (13, HR, 200),
    label=1.0,
    end_h=13.5,
    outcome_h=13.5,
)


def test_landmarks_stand_before_the_outcome_and_ask_whether_it_is_near() -> None:
    cut = windows_of(DYING, ROLLING)
    assert [one.label for one in cut] == [0.0, 0.0, 1.0, 1.0]
    assert [one.end_h for one in cut] == [3.0, 4.0, 4.0, 4.0]
    assert [one.outcome_h for one in cut] == [13.5, 11.5, 8.5, 5.5]


def test_a_landmark_has_no_window_where_a_rough_time_leaves_the_label_open() -> None:
    # Death came between 10 and 13.5 h; the horizon is 5 h, and at 6 h it may lie beyond.
    cut = windows_of(replace(DYING, outcome_h=10.0, outcome_until_h=13.5), ROLLING)
    assert [(one.label, one.outcome_h, one.outcome_until_h) for one in cut] == [
        (0.0, 10.0, 13.5),
        (1.0, 5.0, 8.5),
    ]


def test_tensors_of_landmarks_are_those_computed_by_hand() -> None:
    patients = list(cut_windows([Patient(patient_id="p", stays=(DYING,))], ROLLING))
    grid = to_grid(patients, ROLLING)
    nan = np.nan
    expected = [  # windows 0-3 h, 2-6 h, 5-9 h and 8-12 h; an event at the end is of the last step
        [nan, 60, nan, nan],
        [nan, nan, nan, 100],
        [80, 100, nan, 120],
        [120, nan, nan, nan],
    ]
    assert grid.value_NTV[:, :, HR] == pytest.approx(np.array(expected), nan_ok=True)
    assert grid.value_NTV[:, 0, AGE].tolist() == [70] * 4
    assert grid.mask_NT.tolist() == [[True] * 3 + [False]] + [[True] * 4] * 3
    assert grid.y_N.tolist() == [0, 0, 1, 1]
    assert grid.patient_N.tolist() == [0] * 4  # one patient, however many windows
    x_NTF = to_tensors(grid, Normalisation.reference(ROLLING), ROLLING).x_NTF.numpy()
    x = dict(zip(feature_names(ROLLING), x_NTF.transpose(2, 0, 1), strict=True))
    assert x["HR"][2] == pytest.approx([0, 1, 1, 2])
    assert x["HR measured"][2].tolist() == [1, 1, 0, 1]
    assert x["Age"][3].tolist() == [1] * 4


def test_a_stay_without_the_outcome_gives_negatives_until_it_ends() -> None:
    cut = windows_of(stay((1, HR, 60), end_h=9.0), ROLLING)
    assert [(one.label, one.end_h) for one in cut] == [(0.0, 3.0), (0.0, 4.0)]
    dies_at_home = stay((1, HR, 60), end_h=9.0, outcome_h=10.0)
    assert [one.label for one in windows_of(dies_at_home, ROLLING)] == [0.0, 0.0]


def test_landmarks_end_with_the_hours_that_are_read() -> None:
    short = study_of(LANDMARKS + "longest_h = 7\n")
    assert [one.end_h for one in windows_of(stay((1, HR, 60)), short)] == [3.0, 4.0]


def test_the_window_before_an_event_ends_a_gap_before_the_outcome() -> None:
    (cut,) = windows_of(DYING, ALIGNED)  # 7.5 h to 11.5 h
    assert (cut.label, cut.end_h, cut.outcome_h) == (1.0, 4.0, 6.0)
    assert cut.hours_E.tolist() == [0.0, 1.0]
    assert cut.variable_E.tolist() == [AGE, HR]
    assert cut.value_E.tolist() == [70.0, 120.0]


def test_a_stay_without_the_outcome_is_aligned_with_its_end() -> None:
    (cut,) = windows_of(stay((0.5, HR, 60), (2.5, HR, 70), end_h=5.0, outcome_h=99.0), ALIGNED)
    assert (cut.label, cut.end_h) == (0.0, 3.0)
    assert cut.hours_E.tolist() == [0.5, 2.5]


def test_the_window_after_an_event_begins_with_it_whatever_the_outcome() -> None:
    home = replace(DYING, label=0.0, outcome_h=None)
    for one in (DYING, home):
        (cut,) = windows_of(one, BEGUN)  # 90 is first reached at 6 h: 6 h to 10 h
        assert (cut.label, cut.end_h) == (one.label, 4.0)
        assert list(zip(cut.variable_E, cut.hours_E, cut.value_E, strict=True)) == [
            (AGE, 0.0, 70.0),
            (HR, 0.0, 100.0),
            (HR, 2.5, 120.0),
        ]


def test_a_finished_model_reads_one_window_a_stay_as_of_now_and_needs_no_outcome() -> None:
    unknown = replace(DYING, label=float("nan"), outcome_h=None)
    never = stay((0, AGE, 60), (2, HR, 70), end_h=9.0)

    def scored(study: Study) -> list[tuple[Stay, ...]]:
        patients = [Patient(patient_id=str(n), stays=(s,)) for n, s in enumerate((unknown, never))]
        return [patient.stays for patient in cut_for_scoring(patients, study)]

    for study in (ROLLING, ALIGNED):  # the last 4 h: from 9.5 h, and from 5 h
        (last,), (quiet,) = scored(study)
        assert (last.hours_E.tolist(), last.end_h) == ([0.0, 3.5], 4.0)
        assert (quiet.hours_E.tolist(), quiet.end_h) == ([0.0], 4.0)
        assert window_of(study) == "the last 4 hours, in 4 steps"
    (begun,), nothing = scored(BEGUN)
    assert not nothing
    (trained,) = windows_of(DYING, BEGUN)
    assert np.array_equal(begun.hours_E, trained.hours_E)
    assert np.array_equal(begun.value_E, trained.value_E)
    assert window_of(BEGUN) == "the first 4 hours, in 4 steps, from when HR is first 90 or more"
    (early,), _ = scored(with_changes(BEGUN, data={"window_h": 48}))
    assert early.end_h == 7.5  # the event was at 6 h, and 13.5 h are known


def test_the_first_of_several_static_values_is_kept_as_without_windows() -> None:
    cut = windows_of(stay((0, AGE, 70), (5, AGE, 71), (8, AGE, 72), end_h=13.0), ROLLING)
    assert [one.value_E.tolist() for one in cut] == [[70.0]] * 4


def test_stays_that_cannot_be_placed_have_no_window() -> None:
    unplaced = {
        "an outcome at an unknown time": (stay(label=1.0, end_h=20.0), ROLLING),
        "an outcome before the first landmark": (stay(label=1.0, outcome_h=2.0), ROLLING),
        "an outcome within the gap": (stay(label=1.0, outcome_h=1.5), ALIGNED),
        "neither outcome nor end": (stay(), ALIGNED),
        "an outcome beyond what is read": (stay(label=1.0, outcome_h=999.0), ALIGNED),
        "an event that never happens": (stay((1, HR, 89), end_h=20.0), BEGUN),
        "another variable at that level": (stay((1, AGE, 95), end_h=20.0), BEGUN),
        "an outcome within the window": (stay((1, HR, 95), label=1.0, outcome_h=5.0), BEGUN),
        "a stay that ends within the window": (stay((1, HR, 95), end_h=4.5), BEGUN),
        "a window beyond what is read": (stay((333, HR, 95)), BEGUN),
    }
    for why, (one, study) in unplaced.items():
        patients = [Patient(patient_id="p", stays=(one,)), Patient(patient_id="q", stays=(DYING,))]
        assert [p.patient_id for p in cut_windows(patients, study)] == ["q"], why
    for study, remedy in ((ALIGNED, "say in site.toml"), (BEGUN, "HR must reach 90 4 h before")):
        with pytest.raises(DataError, match=f"not one of 1 stays has a window of .*{remedy}"):
            list(cut_windows([Patient(patient_id="p", stays=(stay(),))], study))


# Hours that float32 holds exactly, and so do their sums and differences: no rounding decides.
HOURS = st.integers(0, 60 * 64).map(lambda sixty_fourths: sixty_fourths / 64)
EVENTS = st.lists(
    st.tuples(HOURS, st.integers(0, 1), st.floats(15, 120, width=32)),
    max_size=20,
)


@pytest.mark.slow
@given(EVENTS, EVENTS, st.floats(15, 120, width=32), st.booleans())
def test_a_window_after_an_event_holds_what_came_within_its_hours_and_nothing_later(
    before: list[tuple[float, int, float]],
    after: list[tuple[float, int, float]],
    level: float,
    died: bool,
) -> None:
    study = study_of(AFTER.replace("90", f"{level:.9g}"))
    outcome_h = 40.0 if died else None

    def cut(events: list[tuple[float, int, float]]) -> tuple[Stay, ...]:
        ordered = sorted(events, key=lambda event: event[0])
        one = stay(*ordered, label=float(died), end_h=40.0, outcome_h=outcome_h)
        try:
            return next(cut_windows([Patient(patient_id="p", stays=(one,))], study)).stays
        except DataError:  # the only stay has no window
            return ()

    reached = [hour for hour, variable, value in before if variable == HR and value >= level]
    first_h = min(reached, default=np.inf)
    end_h = first_h + 4
    windows = cut(before)
    assert len(windows) == (end_h <= 40 and not (died and end_h >= 40))
    for window in windows:
        later = [event for event in after if event[0] > end_h]
        (same,) = cut([event for event in before if event[0] <= end_h] + later)
        assert np.array_equal(window.hours_E, same.hours_E)
        assert np.array_equal(window.value_E, same.value_E)
        held = [hour for hour, variable, _ in before if variable == HR and first_h <= hour <= end_h]
        assert (window.variable_E == HR).sum() == len(held)


@pytest.mark.slow
@given(EVENTS, EVENTS, st.sampled_from([ROLLING, ALIGNED]), st.floats(4, 60), st.booleans())
def test_nothing_after_a_window_changes_it(
    events: list[tuple[float, int, float]],
    others: list[tuple[float, int, float]],
    study: Study,
    outcome_h: float,
    happened: bool,
) -> None:
    def grids(kept: list[tuple[float, int, float]]) -> list[Stay]:
        one = stay(
            *sorted(kept, key=lambda event: event[0]),
            label=float(happened),
            end_h=outcome_h,
            outcome_h=outcome_h if happened else None,
        )
        return list(windows_of(one, study))

    for index, window in enumerate(grids(events)):
        ended_h = outcome_h if window.outcome_h is None else window.outcome_h
        start_h = outcome_h - ended_h if happened else None
        end_h = 3.0 * (index + 1) if study is ROLLING else outcome_h - 2
        if start_h is not None:
            assert start_h == pytest.approx(max(0, end_h - 4))
            assert end_h < outcome_h
        until = [event for event in events if event[0] <= end_h]
        after = [event for event in others if event[0] > end_h]
        changed = grids([*until, *after])[index]
        mine = to_grid([Patient(patient_id="p", stays=(window,))], study)
        theirs = to_grid([Patient(patient_id="p", stays=(changed,))], study)
        assert np.array_equal(mine.value_NTV, theirs.value_NTV, equal_nan=True)
        assert (mine.mask_NT == theirs.mask_NT).all()
        assert (mine.y_N == theirs.y_N).all()


class Given:
    name = "given"

    def __init__(self, *stays: Stay) -> None:
        self._stays, self._tally = stays, Tally(stays=len(stays), patients=len(stays))

    @property
    def report(self) -> ReadReport:
        return self._tally.report()

    def read_patients(self, study: Study) -> Iterator[Patient]:
        for number, one in enumerate(self._stays):
            yield Patient(patient_id=str(number), stays=(one,))


def test_a_study_of_the_first_hours_reads_stays_as_they_are() -> None:
    (patient,) = read_windows(Given(DYING), study_of(""))
    assert patient.stays == (DYING,)


def test_the_check_counts_windows_and_stays_that_have_none() -> None:
    quality = check_quality(Given(DYING, stay(label=1.0), stay(end_h=7.0)), ROLLING)
    assert (quality.stays, quality.windowless, quality.outcome_inside) == (6, 1, 0)
    assert quality.outcome_patients.tolist() == [2, 1]
    told = {finding.about: finding for finding in judge(quality, ROLLING)}
    assert told["windows"].told == "1 of 3 stays have no window"
    assert told["windows"].level == "warns"


def test_a_review_says_which_hours_are_looked_at() -> None:
    rolling, aligned, begun = (
        "\n".join(review_lines(study)) for study in (ROLLING, ALIGNED, BEGUN)
    )
    assert "the 4 h before each landmark, one every 3 h of each stay up to hour 336" in rolling
    assert "to foretell the 5 h after" in rolling
    assert "the 4 h up to 2 h before the outcome or the end of each stay" in aligned
    assert "the 4 h from when HR is first 90 /min or more, if they end before the stay" in begun


@pytest.mark.parametrize(
    ("windows", "more", "sentence"),
    [
        (LANDMARKS + BEFORE, "", "has landmarks and before_event; keep one of these tables"),
        (BEFORE + AFTER, "", "has before_event and after_event; keep one of these tables"),
        (AFTER.replace("HR", "Age"), "", "names 'Age', which is not one of [variables] with role"),
        (AFTER.replace("HR", "Hr"), "", "names 'Hr', which is not one of [variables]"),
        ('clock = "position"\n' + LANDMARKS, "", 'set clock = "hour" or remove the table'),
        (LANDMARKS, "[task]\nper_step = true\n", "remove per_step"),
        (LANDMARKS, '[task]\nkind = "regression"\n', 'set [task] kind = "binary"'),
        ("[data.landmarks]\nevery_h = 0\nhorizon_h = 5\n", "", "every_h = 0 must be at least 1"),
        ("[data.before_event]\ngap_h = 0\n", "", "gap_h = 0 must be at least 1"),
        (LANDMARKS + "longest = 7\n", "", "did you mean 'longest_h'?"),
    ],
)
def test_windows_that_make_no_sense_are_refused(windows: str, more: str, sentence: str) -> None:
    with pytest.raises(StudyError) as caught:
        parse_study(TEXT.format(windows=windows) + more)
    assert sentence in str(caught.value)


def tables_of(folder: Path) -> DataSettings:
    """Two stays in CSV: one who died after 40 h, with events until then, one who went home."""
    rows = {
        "stays.csv": [
            ("who", "in", "out", "died", "death", "age"),
            ("a", "2024-01-01 00:00", "2024-01-02 16:00", 1, "2024-01-02 16:00", 70),
            ("b", "2024-01-01 00:00", "2024-01-02 00:00", 0, "", 50),
        ],
        "events.csv": [
            ("who", "when", "what", "value"),
            *(("a", f"2024-01-{1 + h // 24:02d} {h % 24:02d}:00", "HR", 60 + h) for h in range(40)),
            ("b", "2024-01-01 22:30", "HR", 80),
        ],
    }
    for name, lines in rows.items():
        with (folder / name).open("w", newline="") as file:
            csv.writer(file).writerows(lines)
    table = {
        "source": "tables",
        "stays": {
            "file": "stays.csv", "patient": "who", "start": "in", "end": "out", "label": "died",
            "outcome_time": "death",
        },
        "events": [
            {"file": "events.csv", "patient": "who", "time": "when", "variable": "what",
             "value": "value"}
        ],
        "variables": {
            "Age": {"column": "age", "unit": "a"}, "HR": {"codes": ["HR"], "unit": "/min"},
        },
    }  # fmt: skip  # reads as a table
    return read_data_settings(table, where="site.toml", folder=folder)


def test_a_hospital_s_tables_are_read_beyond_the_window_s_length(tmp_path: Path) -> None:
    source = open_source(tables_of(tmp_path), ALIGNED)
    grid = to_grid(read_windows(source, ALIGNED), ALIGNED)
    assert grid.y_N.tolist() == [1, 0]
    # a: 34 h to 38 h of 40; b: 18 h to 22 h of 24, without an event of its own
    assert grid.value_NTV[0, :, HR].tolist() == [94, 95, 96, 98]
    assert np.isnan(grid.value_NTV[1, :, HR]).all()
    assert grid.value_NTV[:, 0, AGE].tolist() == [70, 50]
