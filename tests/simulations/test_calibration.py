"""A run that ends miscalibrated is put right by its calibration rounds, or says that it was not."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from consilium.server.study.run import RunState
from consilium.shared.model.study_model import study_model
from consilium.shared.rounds.contents import Purpose
from consilium.shared.study.definition import Study, parse_study, with_changes
from consilium.simulations.cohorts.study_cohorts import cohorts_for
from consilium.simulations.federation.faults import Fault, FaultKind
from consilium.simulations.federation.run import Federation, Finished
from consilium.simulations.figures.held_out import HeldOut
from consilium.simulations.report.records import calibration_sentence
from tests.fixed_draws import fix_draws
from tests.simulations.passing_time import let_time_pass

STUDY = parse_study("""
schema = 2
name = "off"
title = "Off"
rounds = 3
seed = 7
sites = ["north", "east", "south", "west"]
[data]
source = "synthetic-icu"
label = "In-hospital_death"
window_h = 6
minimum_patients = 5
[task]
prevalence = 0.04
[model]
hidden = 3
[training]
local_steps = 1
sampling_rate = 0.2
[privacy]
mode = "distributed"
epsilon = 8.0
[aggregation]
server_learning_rate = 0.05
average_decay = 0.5
[variables]
HR = { unit = "/min", low = 10, high = 300, center = 85, spread = 18 }
Age = { unit = "a", low = 15, high = 120, center = 64, spread = 17, role = "static" }
""")


@pytest.fixture(autouse=True)
def repeatable(monkeypatch: pytest.MonkeyPatch) -> None:
    fix_draws(monkeypatch)
    let_time_pass(monkeypatch)


def run(
    study: Study, folder: Path, *faults: Fault
) -> tuple[Finished, list[dict[str, Any]], HeldOut]:
    records: list[dict[str, Any]] = []
    cohorts = cohorts_for(study, None)
    test = HeldOut.read(cohorts.test, study)
    federation = Federation(study, cohorts.sites, folder, workers=1, faults=faults)
    return federation.train(records.append, test), records, test


def lost(site: str, occurrence: int) -> Fault:
    return Fault(
        site=site,
        message_type="query.update",
        occurrence=occurrence,
        kind=FaultKind.LOSE_REPLY,
        delay_s=0,
    )


def observed_over_expected(test: HeldOut, finished: Finished, shift: float) -> float:
    """Return it for the test patients, with the log-odds shifted back by this."""
    risk = finished.scores.reshape(-1)
    before = 1 / (1 + np.exp(shift - np.log(risk / (1 - risk))))
    return float(test.grid.y_N.sum() / before.sum())


def said(study: Study, records: list[dict[str, Any]]) -> str:
    others = [record for record in records if record["purpose"] != "training"]
    return calibration_sentence(study, {"other_rounds": json.loads(json.dumps(others))})


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["distributed", pytest.param("site", marks=pytest.mark.slow)])
def test_risks_that_are_far_too_low_are_right_after_calibration(mode: str, tmp_path: Path) -> None:
    study = with_changes(STUDY, privacy={"mode": mode})
    finished, records, test = run(study, tmp_path)
    assert [r["purpose"] for r in records] == [
        "statistics",
        *["training"] * 3,
        *["calibration"] * 2,
    ]
    shift = sum(record["shift"][0] for record in records[-2:])
    assert observed_over_expected(test, finished, shift) > 1.7
    assert observed_over_expected(test, finished, 0.0) == pytest.approx(1.0, abs=0.15)
    spent = [record["epsilon"] for record in records]
    assert spent[3] < spent[4] < spent[5] <= 8.0
    assert said(study, records) == (
        f"After training, 2 noised sum(s) over all training patients shifted its log-odds by "
        f"{shift:+.2f}; the model has it, and the epsilon covers it."
    )
    kept = study_model(study, finished.state.server.weights_D)
    used = study_model(study, finished.state.server.model_weights)
    assert min(one.output_layers[0].bias.item() for one in (kept, used)) > np.log(0.04 / 0.96)


def test_calibration_with_too_few_sites_is_lost_and_the_other_round_suffices(
    tmp_path: Path,
) -> None:
    faults = (lost("east", 5), lost("west", 5))
    finished, records, test = run(STUDY, tmp_path, *faults)
    assert [r["void"] is None for r in records] == [True] * 5 + [False]
    assert (finished.state.calibrated, len(finished.state.doubt)) == (2, 1)
    assert observed_over_expected(test, finished, 0.0) == pytest.approx(1.0, abs=0.2)
    assert records[-1]["shift"] is None
    assert records[-1]["epsilon"] > records[-2]["epsilon"]  # the sites may have charged it
    void = [record | {"shift": None} for record in records]
    assert "No calibration round gave a sum" in said(STUDY, void)
    assert said(with_changes(STUDY, privacy={"calibration_rounds": 0}), records) == ""


def test_a_crash_costs_the_round_that_may_have_begun() -> None:
    study = with_changes(STUDY, evaluation={"validation_fraction": 0.2})
    state = RunState(server=None, normalisation=b"known", trained=2)
    reached = []
    for _ in range(4):
        state = state.after_crash(study)
        reached.append((state.trained, state.calibrated, state.evaluated))
    assert reached == [(3, 0, 0), (3, 1, 0), (3, 2, 0), (3, 2, 1)]
    assert replace(state, calibrated=0).after_crash(study).calibrated == 1
    assert Purpose("calibration") is Purpose.CALIBRATION
