"""The whole federation in one process, through Flower's messages, with faults on demand."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from consilium.client.secure_sum.journal import RoundJournal
from consilium.server.study.aggregation import start
from consilium.server.study.checkpoints import load_checkpoint
from consilium.shared.errors import RoundVoidError, SettingsError
from consilium.shared.model.network import build_model
from consilium.shared.model.weight_vector import to_vector
from consilium.shared.study.definition import Study, parse_study, with_changes
from consilium.shared.study.input_names import feature_names
from consilium.simulations.cohorts.study_cohorts import cohorts_for
from consilium.simulations.federation.faults import Fault, FaultKind
from consilium.simulations.federation.run import Federation, Finished
from consilium.simulations.figures.held_out import HeldOut
from tests.simulations.passing_time import let_time_pass

TEXT = """
name = "tiny"
title = "Tiny"
rounds = 3
seed = 7
sites = ["north", "east", "south", "west"]
[data]
source = "synthetic-icu"
label = "In-hospital_death"
window_h = 12
minimum_patients = 5
[model]
hidden = 4
[training]
local_steps = 2
sampling_rate = 0.2
[privacy]
mode = "none"
[aggregation]
round_timeout_s = 600.0
[evaluation]
validation_fraction = 0.3
passes = 1
every = 2
[variables]
HR = { unit = "/min", low = 10, high = 300, center = 85, spread = 18 }
GCS = { unit = "{score}", low = 3, high = 15, center = 12, spread = 4 }
Age = { unit = "a", low = 15, high = 120, center = 64, spread = 17, role = "static" }
"""


@pytest.fixture(autouse=True)
def _nobody_waits_for_what_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    let_time_pass(monkeypatch)


@pytest.fixture(scope="module")
def study() -> Study:
    return parse_study(TEXT)


@pytest.fixture(scope="module")
def test_cohort(study: Study) -> HeldOut:
    return HeldOut.read(cohorts_for(study, None).test, study)


def train(
    study: Study, test: HeldOut, folder: Path, *, workers: int = 2, faults: tuple[Fault, ...] = ()
) -> tuple[Finished, list[dict[str, Any]]]:
    records: list[dict[str, Any]] = []
    sources = cohorts_for(study, None).sites
    federation = Federation(study, sources, folder, workers=workers, protocol=True, faults=faults)
    return federation.train(records.append, test), records


@pytest.mark.slow
def test_weights_are_bit_for_bit_the_same_with_one_worker_and_with_four(
    study: Study, test_cohort: HeldOut, tmp_path: Path
) -> None:
    one, _ = train(study, test_cohort, tmp_path / "one", workers=1)
    four, _ = train(study, test_cohort, tmp_path / "four", workers=4)
    assert one.state.server.weights_D.tobytes() == four.state.server.weights_D.tobytes()
    assert one.state.normalisation == four.state.normalisation
    other, _ = train(with_changes(study, study={"seed": 8}), test_cohort, tmp_path / "other")
    assert one.state.server.weights_D.tobytes() != other.state.server.weights_D.tobytes()


def test_a_round_record_tells_sites_bytes_metrics_and_no_single_sites_numbers(
    study: Study, test_cohort: HeldOut, tmp_path: Path
) -> None:
    _, records = train(study, test_cohort, tmp_path)
    purposes = [record["purpose"] for record in records]
    assert purposes == ["statistics", "training", "training", "training", "evaluation"]
    assert [record["validation"] is not None for record in records] == [0, 1, 0, 1, 1]
    for record in records:
        assert record["sites"] == sorted(study.sites)
        assert all(count > 1000 for count in record["bytes_up"].values())
    validation = records[-1]["validation"]
    assert validation["patients"] == pytest.approx(round(validation["patients"]), abs=1e-6)
    assert 0 < validation["loss"] < 5


@pytest.mark.slow
def test_under_privacy_every_release_is_in_every_ledger_and_within_budget(
    study: Study, test_cohort: HeldOut, tmp_path: Path
) -> None:
    private = with_changes(study, privacy={"mode": "site", "epsilon": 4.0})
    sources = cohorts_for(private, None).sites
    federation = Federation(private, sources, tmp_path, workers=2, protocol=True)
    finished = federation.train(lambda _: None, test_cohort)
    for site in study.sites:
        ledger = federation.ledger(site)
        purposes = [entry.release.purpose for entry in ledger.entries()]
        assert purposes == [
            "statistics",
            *["training", "metrics", "training"],
            "training",
            "metrics",
            "metrics",
        ]
        account = ledger.summary().total
        assert account.spent == pytest.approx(4.0, rel=1e-3)
        assert account.spent <= 4.0 * (1 + 1e-9)
        assert account.reserved == 0
    assert finished.history[-1]["epsilon"] == pytest.approx(account.spent, rel=1e-4)


@pytest.mark.slow
def test_noise_is_fresh_in_every_run_under_privacy(
    study: Study, test_cohort: HeldOut, tmp_path: Path
) -> None:
    private = with_changes(study, privacy={"mode": "site"}, study={"rounds": 1})
    one, _ = train(private, test_cohort, tmp_path / "one")
    two, _ = train(private, test_cohort, tmp_path / "two")
    assert one.state.server.weights_D.tobytes() != two.state.server.weights_D.tobytes()


SHARED = {
    "training": {"local_steps": 1, "optimizer": "sgd", "learning_rate": 1.0, "sampling_rate": 1.0},
    "evaluation": {"validation_fraction": 0.0},
    "study": {"rounds": 1},
}


@pytest.mark.slow
def test_with_shared_noise_a_round_is_the_step_of_all_patients_together(
    study: Study, test_cohort: HeldOut, tmp_path: Path
) -> None:
    plain = with_changes(study, **SHARED)
    noisy = with_changes(
        study, **SHARED, privacy={"mode": "distributed", "epsilon": 5000.0, "clip_norm": 20.0}
    )
    begun = start(to_vector(build_model(study, len(feature_names(study)), seed=study.seed)))
    exact, _ = train(plain, test_cohort, tmp_path / "plain")
    shared, records = train(noisy, test_cohort, tmp_path / "noisy")
    step_D = exact.state.server.weights_D - begun.weights_D
    shared_step_D = shared.state.server.weights_D - begun.weights_D
    cosine = step_D @ shared_step_D / np.linalg.norm(step_D) / np.linalg.norm(shared_step_D)
    # Noise of 325 coordinates is 0.077 of the step's length, 0.003 more or less; here 0.2 would
    # fail, 40 standard deviations further.
    assert cosine > 0.98
    assert np.linalg.norm(shared_step_D) == pytest.approx(np.linalg.norm(step_D), rel=0.1)
    assert records[-1]["update_norm"] == pytest.approx(np.linalg.norm(shared_step_D), rel=1e-3)


def test_fewer_survivors_than_the_noise_counts_on_release_nothing(
    study: Study, test_cohort: HeldOut, tmp_path: Path
) -> None:
    noisy = with_changes(study, **SHARED, privacy={"mode": "distributed"})
    faults = tuple(
        Fault(site=site, message_type="query.update", occurrence=1, kind=FaultKind.CRASH)
        for site in ("north", "east")
    )
    finished, records = train(noisy, test_cohort, tmp_path, faults=faults)
    assert noisy.minimum_sites == 3
    assert "3 are needed" in records[1]["void"]
    begun = build_model(noisy, len(feature_names(noisy)), seed=noisy.seed)
    assert np.array_equal(finished.state.server.weights_D, to_vector(begun))


@pytest.mark.slow
@pytest.mark.parametrize("kind", [FaultKind.LOSE_REQUEST, FaultKind.LOSE_REPLY, FaultKind.CRASH])
@pytest.mark.parametrize("action", ["update", pytest.param("unmask", marks=pytest.mark.slow)])
def test_a_site_lost_in_one_exchange_costs_neither_the_round_nor_the_run(
    study: Study, test_cohort: HeldOut, tmp_path: Path, kind: FaultKind, action: str
) -> None:
    fault = Fault(site="south", message_type=f"query.{action}", occurrence=1, kind=kind)
    finished, records = train(study, test_cohort, tmp_path, faults=(fault,))
    assert [record["void"] for record in records] == [None] * 5
    missing = [set(study.sites) - set(record["sites"]) for record in records]
    assert missing[1] == ({"south"} if action == "update" else set())
    assert missing[3] == set()
    assert finished.state.trained == 3


def test_corrupted_keys_are_noticed_when_they_arrive_and_dealt_again_before_the_round(
    study: Study, test_cohort: HeldOut, tmp_path: Path
) -> None:
    fault = Fault(site="east", message_type="query.keys", occurrence=0, kind=FaultKind.CORRUPT)
    finished, records = train(study, test_cohort, tmp_path, faults=(fault,))
    assert all(record["sites"] == sorted(study.sites) for record in records)
    assert finished.state.trained == 3


@pytest.mark.slow
def test_too_few_sites_void_the_round_and_leave_the_model_unchanged(
    study: Study, test_cohort: HeldOut, tmp_path: Path
) -> None:
    faults = tuple(
        Fault(site=site, message_type="query.update", occurrence=2, kind=FaultKind.CRASH)
        for site in ("north", "east")
    )
    finished, records = train(study, test_cohort, tmp_path, faults=faults)
    void = records[2]
    assert "2 of 4 sites sent a masked update, and 3 are needed" in void["void"]
    assert void["test"]["auroc"] == records[1]["test"]["auroc"]
    assert records[3]["void"] is None
    assert finished.state.trained == 3


def test_statistics_that_cannot_be_summed_end_the_run_with_the_reason(
    study: Study, test_cohort: HeldOut, tmp_path: Path
) -> None:
    faults = tuple(
        Fault(site=site, message_type="query.update", occurrence=0, kind=FaultKind.CRASH)
        for site in ("north", "east")
    )
    with pytest.raises(RoundVoidError, match="statistics could not be summed"):
        train(study, test_cohort, tmp_path, faults=faults)


class PowerCutError(Exception):
    """The power goes out."""


def cut_after(study: Study, test: HeldOut, folder: Path, rounds: int) -> None:
    shown: list[dict[str, Any]] = []

    def show(record: dict[str, Any]) -> None:
        shown.append(record)
        if len(shown) == rounds:
            raise PowerCutError

    with pytest.raises(PowerCutError):
        Federation(study, cohorts_for(study, None).sites, folder, workers=2, protocol=True).train(
            show, test
        )


@pytest.mark.slow
def test_a_run_that_was_cut_off_goes_on_and_never_repeats_a_round(
    study: Study, test_cohort: HeldOut, tmp_path: Path
) -> None:
    private = with_changes(study, privacy={"mode": "site"}, evaluation={"validation_fraction": 0.0})
    cut_after(private, test_cohort, tmp_path, rounds=2)
    finished, records = train(private, test_cohort, tmp_path)
    numbers = [record["round"] for record in records]
    assert numbers == [1, 2, 4]  # the third may have begun when the power went out
    assert finished.state.trained == 3
    journal = RoundJournal(tmp_path / "sites" / "north" / "journal.sqlite")
    checkpoint = load_checkpoint(tmp_path)
    assert checkpoint is not None
    assert checkpoint.state.finished
    assert records[-1]["epsilon"] <= private.privacy.epsilon * (1 + 1e-9)
    assert journal is not None


@pytest.mark.slow
def test_without_privacy_a_cut_off_run_still_has_all_its_rounds(
    study: Study, test_cohort: HeldOut, tmp_path: Path
) -> None:
    cut_after(study, test_cohort, tmp_path, rounds=2)
    finished, records = train(study, test_cohort, tmp_path)
    assert [r["purpose"] for r in records].count("training") == 3
    assert finished.state.finished


@pytest.mark.slow
def test_a_finished_run_is_shown_again_and_not_trained_again(
    study: Study, test_cohort: HeldOut, tmp_path: Path
) -> None:
    first, records = train(study, test_cohort, tmp_path)
    again, shown = train(study, test_cohort, tmp_path)
    assert shown == records
    assert np.array_equal(first.scores, again.scores)


def test_a_folder_of_another_study_is_refused(
    study: Study, test_cohort: HeldOut, tmp_path: Path
) -> None:
    train(study, test_cohort, tmp_path)
    with pytest.raises(SettingsError, match=r"another study .* choose another --out"):
        train(with_changes(study, study={"seed": 9}), test_cohort, tmp_path)


def test_site_folders_and_keys_are_readable_by_their_owner_only(
    study: Study, test_cohort: HeldOut, tmp_path: Path
) -> None:
    train(study, test_cohort, tmp_path)
    for site in study.sites:
        folder = tmp_path / "sites" / site
        assert folder.stat().st_mode & 0o777 == 0o700
        for file in folder.iterdir():
            assert file.stat().st_mode & 0o077 == 0, file.name


@pytest.mark.slow
def test_groups_of_sites_train_by_their_median_and_one_group_may_fail(
    test_cohort: HeldOut, tmp_path: Path
) -> None:
    text = TEXT.replace(
        'sites = ["north", "east", "south", "west"]',
        "sites = [" + ", ".join(f'"hospital-{i}"' for i in range(1, 10)) + "]",
    ).replace("[aggregation]", "[aggregation]\ngroups = 3\ntolerated_collusion = 0")
    grouped = parse_study(text)
    lost = Fault(
        site="hospital-5", message_type="query.update", occurrence=2, kind=FaultKind.LOSE_REPLY
    )
    finished, records = train(grouped, test_cohort, tmp_path, faults=(lost,))
    assert [len(record["sites"]) for record in records] == [9, 9, 6, 9, 9]
    assert set(records[2]["refusals"]) == {"hospital-4", "hospital-5", "hospital-6"}
    assert finished.state.finished
    assert np.isfinite(finished.state.server.weights_D).all()
