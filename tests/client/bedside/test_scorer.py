"""The streaming scorer: at any moment what the batch says of the same events, and why."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consilium.client.bedside.prediction import predict_patients
from consilium.client.bedside.scorer import Scorer
from consilium.client.explain.window_pass import WindowPass
from consilium.client.records.features import label_shape, to_grid, to_tensors
from consilium.client.round.predictions import predict
from consilium.client.sources.common.cleaning import Cleaner
from consilium.client.sources.common.source import Patient, Stay, Tally
from consilium.client.sources.public.physionet2012 import PhysioNet2012
from consilium.shared.errors import ConsiliumError, DataError
from consilium.shared.kernels import through_time
from consilium.shared.model.normalisation import Normalisation
from consilium.shared.study.definition import Study, load_study, parse_study, with_changes
from tests.branch_studies import (
    BRANCHES,
    CLOCKS_AND_STEPS,
    VARIABLES,
    study_of_branches,
)
from tests.signed_models import some_signed

ROOT = Path(__file__).parents[3]
SET_A = ROOT.parent / "shared" / "data" / "physionet2012" / "set-a.zip"
STUDY = parse_study("""
name = "stream"
title = "stream"
rounds = 1
sites = ["a", "b", "c"]
[data]
source = "tables"
label = "y"
window_h = 12
step_h = 2
[model]
hidden = 5
[variables]
HR = { unit = "/min", low = 10, high = 300, center = 80, spread = 20 }
Age = { unit = "a", low = 15, high = 120, center = 60, spread = 10, role = "static" }
Lactate = { unit = "mmol/L", low = 0.1, high = 40, center = 1.8, spread = 0.6, scale = "log" }
Temp = { unit = "Cel", low = 25, high = 45, center = 37, spread = 0.8 }
pH = { unit = "[pH]", low = 6.5, high = 8, center = 7.38, spread = 0.08 }
""")
TOKENS = {"names": ("code", "drug"), "vocabulary": ("x", "y", "z"), "width": 3}
CELLS = ("rnn", "lstm", "gru")
POOLINGS = ("last", "mean", "max", "attention")
TASKS = (
    {"kind": "binary", "outputs": 1},
    {"kind": "multilabel", "outputs": 3},
    {"kind": "multiclass", "outputs": 3},
    {"kind": "regression", "outputs": 2, "center": 5.0, "spread": 3.0},
)
RANGES = {
    "HR": (5, 320),
    "Age": (10, 100),
    "Lactate": (0.0625, 45),
    "Temp": (30, 100),
    "pH": (6, 9),
}

Event = tuple[float, str, float]
times = st.floats(0, 12, width=32) | st.integers(0, 12).map(float)
measured = st.sampled_from(sorted(RANGES)).flatmap(
    lambda name: st.tuples(times, st.just(name), st.floats(*RANGES[name], width=32))
)
codes = st.tuples(times, st.sampled_from(TOKENS["names"]), st.sampled_from([1.0, 2.0, 3.0, 4.0]))


def study_of(*, tokens: bool = False, clock: str = "hour", task: dict, **model: object) -> Study:
    if task.get("kind") == "regression" and task["outputs"] == 2:
        task = task | {"outputs": 2}
    changed = with_changes(STUDY, model=model, task=task, data={"clock": clock})
    if not tokens:
        return changed
    return with_changes(changed, study={"tokens": TOKENS})


def said(event: Event) -> dict[str, object]:
    """An event as a program sends it."""
    hours, name, value = event
    told = {"stay": "s", "hours": hours, "variable": name}
    if name in STUDY.variables:
        return told | {"value": value, "unit": STUDY.variables[name].unit}
    return told | {"code": ("other", "x", "y", "z")[int(value) - 1]}


def batch(study: Study, trained, events: list[Event], reached: int) -> np.ndarray:
    """Scores of the stay with these events, observed to the end of this step."""
    names = [*study.variables, *(study.tokens.names if study.tokens else ())]
    cleaned = Cleaner(study, Tally()).clean(
        np.array([event[0] for event in events], np.float32),
        np.array([names.index(event[1]) for event in events], np.int16),
        np.array([event[2] for event in events], np.float32),
    )
    end = None if reached == study.data.steps else float(reached * study.data.step_h)
    stay = Stay(
        stay_id="s", hours_E=cleaned[0], variable_E=cleaned[1], value_E=cleaned[2],
        label=np.zeros(label_shape(study)), end_h=end,
    )  # fmt: skip
    grid = to_grid([Patient(patient_id="p", stays=(stay,))], study)
    inputs = to_tensors(grid, trained.normalisation, study)
    scores = predict(trained.model, inputs.x_NTF, inputs.mask_NT)[0]
    return scores[reached - 1] if study.task.per_step else scores


def close(answer: dict, expected: np.ndarray, study: Study) -> None:
    """To 1e-5, in regression of the target's spread."""
    values = [output["value"] for output in answer["outputs"]]
    assert values == pytest.approx(expected.tolist(), abs=1e-5 * study.task.spread)


def check_against_batch(study: Study, events: list[Event], seed: int, *, reasons: bool) -> None:
    signed = some_signed(study, seed)
    scorer = Scorer(signed, reasons=reasons)
    for number, event in enumerate(events, start=1):
        answer = scorer.take(said(event))
        expected = batch(study, signed.trained, events[:number], answer["steps"])
        close(answer, expected, study)
    late = scorer.take({"stay": "s", "hours": 12})
    assert late["steps"] == study.data.steps
    close(late, batch(study, signed.trained, events, study.data.steps), study)


@pytest.mark.sampled(4)
@pytest.mark.parametrize("pooling", [*POOLINGS, "per step"])
@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("cell", CELLS)
@settings(max_examples=6, deadline=None)
@given(
    layers=st.integers(1, 2),
    around=st.booleans(),
    tokens=st.booleans(),
    clock=st.sampled_from(["hour", "position"]),
    task=st.sampled_from(TASKS),
    events=st.lists(measured, min_size=1, max_size=8),
    coded=st.lists(codes, max_size=3),
    seed=st.integers(0, 100),
    reasons=st.booleans(),
)
def test_every_answer_is_the_batchs_for_every_kind_of_model_and_any_order_of_events(
    cell, both, pooling, layers, around, tokens, clock, task, events, coded, seed, reasons
) -> None:
    model = {"cell": cell, "bidirectional": both, "layers": layers, "skip": around}
    if around:
        model |= {"projection": 4, "layer_norm": True}
    task = task | {"per_step": pooling == "per step"}
    if pooling != "per step":
        model["pooling"] = pooling
    study = study_of(tokens=tokens, clock=clock, task=task, **model)
    mixed = [*events, *(coded if tokens else [])]
    order = np.random.default_rng(seed).permutation(len(mixed))
    check_against_batch(study, [mixed[place] for place in order], seed, reasons=reasons)


def said_of_branches(event: Event) -> dict[str, object]:
    """An event of the studies of branches, as a program sends it."""
    hours, name, value = event
    told = {"stay": "s", "hours": hours, "variable": name}
    if name in TOKENS["names"]:
        return told | {"code": ("other", "x", "y", "z")[int(value) - 1]}
    units = {"hr": "1/min"} | {key: spec["unit"] for key, spec in VARIABLES.items()}
    return told | {"value": value, "unit": units[name]}


@pytest.mark.sampled(13)
@CLOCKS_AND_STEPS
@pytest.mark.parametrize("name", [*BRANCHES, "backwards"])
def test_every_answer_of_branches_is_the_batchs_and_every_reason_an_absence(
    name, per_step, clock
) -> None:
    """In any order of events, late ones among them; the reasons are those of leaving out."""
    study = study_of_branches("all" if name == "backwards" else name, clock=clock,
                              task={"per_step": per_step})  # fmt: skip
    if name == "backwards":  # one branch that cannot stream: the whole window is read each time
        branches = [{"kind": "recurrent", "hidden": 3, "bidirectional": True}, {"kind": "summary"}]
        study = with_changes(study, model={"branches": branches})
    check_branches(study)


@pytest.mark.parametrize("per_step", [False, True])
def test_every_answer_of_a_branch_that_fades_is_the_batchs_and_every_reason_an_absence(
    per_step: bool,
) -> None:
    branches = [{"kind": "recurrent", "cell": "gru-d", "hidden": 3, "inputs": ["age", "bp"]}]
    study = study_of_branches("summary", task={"per_step": per_step})
    check_branches(with_changes(study, model={"branches": branches}))


def test_every_answer_of_survival_is_the_batchs_and_every_reason_an_absence() -> None:
    task = {"kind": "survival", "outputs": 3, "cuts": (1.0, 2.0, 4.0)}
    check_branches(study_of_branches("all", task=task))


def check_branches(study: Study) -> None:
    signed = some_signed(study, 5)
    scorer, stream = Scorer(signed), np.random.default_rng(6)
    events: list[Event] = []
    columns = [*study.variables, *(study.tokens.names if study.tokens else ()), "hr"]
    for _ in range(9):
        variable = str(stream.choice(columns))
        value = float(
            stream.integers(1, 5) if variable in TOKENS["names"] else stream.integers(50, 90)
        )
        events.append((float(stream.integers(0, 12 * 64)) / 64, variable, value))
        answer = scorer.take(said_of_branches(events[-1]))
        close(answer, batch(study, signed.trained, events, answer["steps"]), study)
    whole = batch(study, signed.trained, events, answer["steps"])[0]
    for reason in answer["outputs"][0]["reasons"]:
        left = [event for event in events if event[1] != reason["variable"]]
        without = batch(study, signed.trained, left, answer["steps"])[0]
        effect = np.log(whole / (1 - whole)) - np.log(without / (1 - without))
        assert reason["effect"] == pytest.approx(effect, abs=1e-4)


@pytest.mark.parametrize("cell", CELLS)
def test_answers_and_reasons_are_the_same_without_a_compiler(
    cell: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel's short cut against the whole model, run on every row."""
    study = study_of(
        task=TASKS[0], cell=cell, bidirectional=True, hidden=40, layers=2, skip=True, tokens=True
    )
    events = [(0.5, "HR", 130.0), (0.5, "code", 2.0), (3.0, "Lactate", 9.0), (7.0, "HR", 50.0)]
    scorer = Scorer(some_signed(study))
    short = [scorer.take(said(event)) for event in events]
    monkeypatch.setattr(through_time, "serves", lambda _: False)
    monkeypatch.setattr(WindowPass, "serves", lambda: False)
    scorer = Scorer(some_signed(study))
    whole = [scorer.take(said(event)) for event in events]
    for one, other in zip(short, whole, strict=True):
        (left,), (right,) = one["outputs"], other["outputs"]
        assert left["value"] == pytest.approx(right["value"], abs=1e-5)
        effects = [{r["variable"]: r["effect"] for r in out["reasons"]} for out in (left, right)]
        assert effects[0] == pytest.approx(effects[1], abs=1e-4)
    assert len(short[-1]["outputs"][0]["reasons"]) == 3


@settings(max_examples=20, deadline=None)
@given(
    events=st.lists(measured, min_size=1, max_size=8),
    pooling=st.sampled_from(POOLINGS),
    seed=st.integers(0, 100),
    reasons=st.booleans(),
)
def test_every_answer_of_a_gru_d_is_the_batchs(events, pooling, seed, reasons) -> None:
    study = study_of(task=TASKS[0], cell="gru-d", pooling=pooling)
    check_against_batch(study, events, seed, reasons=reasons)


@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("task", TASKS, ids=lambda task: task["kind"])
def test_an_effect_is_what_the_variables_absence_would_change(task: dict, both: bool) -> None:
    study = study_of(task=task, cell="gru", bidirectional=both, pooling="mean")
    signed = some_signed(study, 3)
    events = [(0.5, "HR", 130.0), (0.5, "Age", 80.0), (3.0, "Lactate", 9.0), (7.0, "HR", 50.0)]
    scorer = Scorer(signed)
    answer = [scorer.take(said(event)) for event in events][-1]
    whole = batch(study, signed.trained, events, answer["steps"])
    for output, told in enumerate(answer["outputs"]):
        effects = {reason["variable"]: reason["effect"] for reason in told["reasons"]}
        assert set(effects) == {"HR", "Age", "Lactate"}
        for name, effect in effects.items():
            others = [event for event in events if event[1] != name]
            without = batch(study, signed.trained, others, answer["steps"])
            expected = whole[output] - without[output]
            if task["kind"] != "regression":
                before, after = (
                    np.log(risk[output] / (1 - risk[output])) for risk in (without, whole)
                )
                expected = after - before
            assert effect == pytest.approx(expected, abs=1e-4)
        assert list(map(abs, effects.values())) == sorted(map(abs, effects.values()), reverse=True)


def test_stays_are_kept_apart_and_forgotten_when_they_end() -> None:
    scorer = Scorer(some_signed(STUDY), most_stays=2)
    alone = Scorer(some_signed(STUDY))
    for hours, value in ((0.0, 70), (5.0, 140), (9.0, 180)):
        event = {"hours": hours, "variable": "HR", "value": value, "unit": "/min"}
        scorer.take({"stay": "other", **event, "value": 30})
        mine, expected = scorer.take({"stay": "s", **event}), alone.take({"stay": "s", **event})
        assert mine["outputs"] == expected["outputs"]
    with pytest.raises(DataError, match="2 stays are kept already"):
        scorer.take({"stay": "third", "hours": 0})
    assert scorer.take({"stay": "other", "end": True}) == {"stay": "other", "ended": True}
    assert scorer.stays == 1
    assert scorer.take({"stay": "third", "hours": 0})["steps"] == 1
    with pytest.raises(DataError, match="nothing to end"):
        scorer.take({"stay": "other", "end": True})


def test_units_are_converted_and_obvious_slips_repaired_as_in_training() -> None:
    scorer = Scorer(some_signed(STUDY))
    plain = scorer.take({"stay": "a", "hours": 1, "variable": "Temp", "value": 37.0, "unit": "Cel"})
    for stay, value, unit in (("b", 98.6, "[degF]"), ("c", 310.15, "K"), ("d", 98.6, "Cel")):
        other = scorer.take(
            {"stay": stay, "hours": 1, "variable": "Temp", "value": value, "unit": unit}
        )
        assert other["outputs"][0]["value"] == pytest.approx(plain["outputs"][0]["value"], abs=1e-6)
        assert other["warnings"] == (["Temp: 98.6 was read as 37 Cel"] if stay == "d" else [])
    assert scorer.take({"stay": "e", "hours": 0, "variable": "pH", "value": 7.3})["warnings"] == []


def test_a_value_out_of_range_is_told_and_used_only_as_the_study_says() -> None:
    dropped, clipped = (
        Scorer(some_signed(with_changes(STUDY, data={"on_out_of_range": what})))
        for what in ("drop", "clip")
    )
    event = {"stay": "s", "hours": 1, "variable": "HR", "value": 400, "unit": "/min"}
    nothing = dropped.take({"stay": "n", "hours": 1})
    told = dropped.take(event)
    assert told["warnings"] == ["HR: 400 is outside 10 to 300 /min and was not used"]
    assert told["outputs"] == nothing["outputs"]
    told = clipped.take(event)
    assert told["warnings"][0] == "HR: 400 is outside 10 to 300 /min and was taken as 300"
    assert told["outputs"] != nothing["outputs"]


def test_a_value_far_from_all_training_patients_is_told() -> None:
    scorer = Scorer(some_signed(STUDY, normalisation=Normalisation.reference(STUDY)))
    event = {"stay": "s", "hours": 1, "variable": "Lactate", "unit": "mmol/L"}
    assert scorer.take(event | {"value": 30.0})["warnings"] == []
    (told,) = scorer.take(event | {"value": 39.0})["warnings"]
    assert told.startswith("Lactate: 5 deviations or more from the training patients' mean")


def test_a_variable_whose_mean_moved_is_told_after_many_stays_and_others_are_not() -> None:
    signed = some_signed(STUDY)
    normal = np.random.default_rng(0)
    scorer, warned = Scorer(signed), []
    mean, deviation = signed.trained.normalisation.mean_V, signed.trained.normalisation.deviation_V
    for number in range(80):
        z = mean[0] + deviation[0] * (normal.normal() + 1.5)
        moved = {"stay": f"s{number}", "hours": 0, "variable": "HR", "unit": "/min",
                 "value": float(np.clip(80 + 20 * z, 11, 299))}  # fmt: skip
        told = scorer.take(moved)["warnings"]
        warned.append(any("drift" in warning for warning in told))
        z = mean[3] + deviation[3] * normal.normal()
        steady = {"stay": f"s{number}", "hours": 0, "variable": "Temp", "unit": "Cel",
                  "value": float(np.clip(37 + 0.8 * z, 26, 44))}  # fmt: skip
        assert not any("drift" in warning for warning in scorer.take(steady)["warnings"])
    assert not any(warned[:29])
    assert all(warned[40:])


GOOD = {"stay": "s", "hours": 1, "variable": "HR", "value": 80, "unit": "/min"}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"variable": "HeartRate"}, "variable 'HeartRate' is none of this model's; did you mean"),
        ({"variable": 7}, "variable 7 is none"),
        ({"unit": "mg/dL"}, "cannot be converted to '/min', they measure different things"),
        ({"unit": "pints"}, "unit 'pints' is not a known UCUM code"),
        ({"unit": None}, "says no unit; say it, such as '/min'"),
        ({"unit": 3}, "says no unit"),
        ({"value": "80"}, "its value must be a finite number"),
        ({"value": float("nan")}, "its value must be a finite number"),
        ({"value": True}, "its value must be a finite number"),
        ({"hours": 12.5}, "hours 12.5 is outside 0 to 12"),
        ({"hours": -1}, "outside 0 to 12"),
        ({"hours": float("nan")}, "outside 0 to 12"),
        ({"hours": "1"}, "must be a number of hours"),
        ({"hours": None}, "must be a number of hours"),
        ({"stay": ""}, "must be a text of 1 to 128"),
        ({"stay": 5}, "must be a text of 1 to 128"),
        ({"when": 5}, "has a key 'when'; did you mean"),
    ],
)
def test_what_cannot_be_used_is_refused_in_a_sentence_and_leaves_nothing_behind(
    change: dict, told: str
) -> None:
    scorer = Scorer(some_signed(STUDY))
    before = scorer.take(GOOD)
    with pytest.raises(DataError, match=told.replace("(", r"\(")):
        scorer.take(GOOD | {"hours": 3, "value": 200} | change)
    assert scorer.stays == 1
    assert scorer.take({"stay": "s", "hours": 1})["outputs"] == before["outputs"]


ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.just(10**400)
    | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner),
    max_leaves=3,
)


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(change=st.dictionaries(st.sampled_from([*GOOD, "code", "end"]), ANYTHING, max_size=3))
def test_whatever_json_an_event_holds_it_is_answered_or_refused(change: dict) -> None:
    scorer = Scorer(some_signed(STUDY), reasons=False)
    try:
        answer = scorer.take(GOOD | change)
    except ConsiliumError as error:
        answer = {"error": str(error), "outputs": []}
    assert "\n" not in answer.get("error", "")
    assert scorer.stays == (0 if "error" in answer else 1)
    assert all(np.isfinite(output["value"]) for output in answer["outputs"])


def test_codes_are_taken_as_codes_and_unknown_ones_told() -> None:
    scorer = Scorer(some_signed(study_of(tokens=True, task={})))
    known = {"stay": "s", "hours": 1, "variable": "code", "code": "x"}
    assert scorer.take(known)["warnings"] == []
    assert "not in the study's vocabulary" in scorer.take(known | {"code": "w"})["warnings"][0]
    with pytest.raises(DataError, match="takes a code"):
        scorer.take(known | {"code": 4})


def test_the_answer_does_not_depend_on_how_often_it_was_asked() -> None:
    signed = some_signed(study_of(task={}, cell="lstm", layers=2, pooling="attention"))
    events = [said((hour, "HR", 60.0 + 9 * hour)) for hour in (1.0, 4.0, 6.5, 11.0)]
    often, once = Scorer(signed), Scorer(signed)
    for event, hour in itertools.product(events, (0, 1, 2, 3)):
        often.take(event)
        often.take({"stay": "s", "hours": hour})
    answers = [once.take(event) for event in events]
    assert often.take({"stay": "s", "hours": 11})["outputs"] == answers[-1]["outputs"]


@pytest.mark.slow
@pytest.mark.skipif(
    not SET_A.exists(), reason="the challenge's files are not beside the repository"
)
def test_real_stays_streamed_event_by_event_end_where_the_batch_does() -> None:
    study = load_study(ROOT / "studies" / "icu-mortality-2012.toml")
    signed = some_signed(study)
    patients = list(itertools.islice(PhysioNet2012(SET_A).read_patients(study), 5))
    scorer = Scorer(signed, reasons=False)
    names = list(study.variables)
    for predicted, patient in zip(
        predict_patients(signed.trained, patients), patients, strict=True
    ):
        (stay,) = patient.stays
        for hours, column, value in zip(
            stay.hours_E.tolist(), stay.variable_E, stay.value_E.tolist(), strict=True
        ):
            name = names[column]
            event = {"stay": stay.stay_id, "hours": hours, "variable": name, "value": value}
            told = scorer.take(event | {"unit": study.variables[name].unit})
            assert told["warnings"] == [] or "deviations or more" in told["warnings"][0]
        answer = scorer.take({"stay": stay.stay_id, "hours": study.data.window_h})
        assert answer["outputs"][0]["value"] == pytest.approx(predicted.scores[0], abs=1e-5)
