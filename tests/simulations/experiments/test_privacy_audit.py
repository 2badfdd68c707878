"""The audit acquits the honest build of every kind of study, and convicts builds that break it."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from consilium.client.ledger import store
from consilium.client.round import (
    calibration_round,
    evaluation_round,
    feasibility_round,
    gradients,
    randomness,
    statistics_round,
    training,
    training_round,
    validation_sums,
)
from consilium.shared.crypto.keystream import Keystream
from consilium.shared.errors import SettingsError
from consilium.shared.model.bookkeeping import Bookkeeping
from consilium.shared.privacy.shared_noise import NoiseShare
from consilium.shared.study.definition import Study, load_study, with_changes
from consilium.simulations.commands.strategies import STRATEGIES
from consilium.simulations.experiments import ledger_audit
from consilium.simulations.experiments.audit_findings import Audit, AuditVerdict
from consilium.simulations.experiments.privacy_audit import audit_study
from tests.study_text import small_study

STUDIES = sorted((Path(__file__).parents[3] / "studies").glob("*.toml"))
OF_SOME_TASKS = ("demo", "arrhythmia-mitdb", "tox21")  # binary, several classes, several labels
CELLS = ("rnn", "lstm", "gru", "gru-d")
RATE = 0.3
BOTH = [pytest.param("site", marks=pytest.mark.slow), "distributed"]
EVALUATED = {"validation_fraction": 0.2, "explained_patients": 20}


@pytest.fixture(autouse=True)
def _the_same_draws(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """An honest audit errs once in a thousand: each time a test sees the same numbers."""
    source = Keystream(hashlib.sha256(request.node.name.encode()).digest())
    monkeypatch.setattr(randomness, "secrets", SimpleNamespace(token_bytes=source.bytes))


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def variable(center: float) -> dict[str, object]:
    return {"unit": "1", "low": 0.0, "high": 300.0, "center": center, "spread": 20.0}


def study(mode: str = "distributed", cell: str = "gru", **tables: dict[str, object]) -> Study:
    changes: dict[str, dict[str, object]] = {
        "data": {"window_h": 6},
        "variables": {f"v{number}": variable(80.0 + number) for number in range(7)},
        "model": {"hidden": 16, "cell": cell},
        "training": {"local_steps": 1 if mode == "distributed" else 3, "sampling_rate": RATE},
        "privacy": {"mode": mode, "clip_norm": 2.0},
    }
    for table, more in tables.items():
        changes[table] = {**changes.get(table, {}), **more}
    return small_study(rounds=20, **changes)


def convicted(audit: Audit) -> set[tuple[str, str]]:
    return {(found.release, found.what) for found in audit.convicted}


def blind(audit: Audit) -> list[tuple[str, str]]:
    return [(f.release, f.what) for f in audit.findings if f.verdict is AuditVerdict.NO_POWER]


@pytest.mark.slow
@pytest.mark.parametrize("path", STUDIES, ids=[path.stem for path in STUDIES])
def test_every_shipped_study_is_audited_with_power_and_acquitted(path: Path) -> None:
    shipped = load_study(path)
    audit = audit_study(shipped)
    assert convicted(audit) == set()
    assert blind(audit) == []
    assert 0.6 * shipped.privacy.epsilon < audit.epsilon_low <= shipped.privacy.epsilon


@pytest.mark.slow
def test_a_count_of_persons_is_acquitted_and_convicted_with_half_its_noise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    counted = study("site", "rnn", feasibility={"epsilon": 1.0})
    audit = audit_study(counted)
    assert (convicted(audit), blind(audit)) == (set(), [])
    assert "feasibility" in {found.release for found in audit.findings}
    honest = feasibility_round.feasibility_noise
    monkeypatch.setattr(feasibility_round, "feasibility_noise", lambda of: honest(of) / 2)
    found = convicted(audit_study(counted))
    assert ("feasibility", "noise, standard deviation") in found


@pytest.mark.slow
@pytest.mark.parametrize("name", OF_SOME_TASKS)
def test_evaluation_and_attributions_of_classification_are_acquitted(name: str) -> None:
    """With patients held out, and explained where the task can be."""
    shipped = load_study(STUDIES[0].parent / f"{name}.toml")
    few = {"name": "few", "sites": shipped.sites[:4]}
    explained = 20 if shipped.task.outputs == 1 else 0
    held_out = with_changes(
        shipped,
        study=few,
        data={"window_h": min(8, shipped.data.window_h)},
        aggregation={"minimum_sites": None, "neighbours": None},
        evaluation={**EVALUATED, "explained_patients": explained},
    )
    audit = audit_study(held_out)
    assert convicted(audit) == set()
    assert blind(audit) == []
    names = {found.release for found in audit.findings}
    assert {"evaluation in training", "final evaluation"} <= names
    assert ("attributions" in names) == (explained > 0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "cell"),
    [
        ("site", "lstm"),
        ("distributed", "gru"),
        *(
            pytest.param(mode, cell, marks=pytest.mark.slow)
            for mode, cell in (("site", "gru-d"), ("distributed", "rnn"), ("distributed", "gru-d"))
        ),
    ],
)
def test_an_honest_build_is_acquitted(mode: str, cell: str) -> None:
    audit = audit_study(study(mode, cell))
    assert convicted(audit) == set()
    assert blind(audit) == []
    assert 4.5 < audit.epsilon_low < audit.epsilon_claimed == 8.0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["scaffold", "fedprox", "head", "norm", "inputs", "ditto"])
def test_what_sites_keep_or_correct_is_acquitted(name: str) -> None:
    tables = {table: dict(keys) for table, keys in STRATEGIES[name].items()}
    tables.setdefault("model", {})["layer_norm"] = True
    audit = audit_study(study("site", **tables))
    assert convicted(audit) == set()
    assert blind(audit) == []
    figures = {found.what for found in audit.findings}
    assert ("control variate + update" in figures) == (name == "scaffold")


def halve_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every site's noise has half its standard deviation, wherever it is drawn."""

    class Half(Keystream):
        def standard_normal(self, count: int) -> np.ndarray:
            return super().standard_normal(count) / 2

    monkeypatch.setattr(randomness, "Keystream", Half)
    for module, name in (
        (training_round, "noise_share"),
        (calibration_round, "calibration_share"),
    ):
        honest = getattr(module, name)

        def share(*arguments: object, honest: Callable[..., NoiseShare] = honest) -> NoiseShare:
            found = honest(*arguments)
            return replace(found, variance=found.variance // 4)

        monkeypatch.setattr(module, name, share)


@pytest.mark.slow
@pytest.mark.parametrize("mode", BOTH)
def test_halved_noise_is_convicted_in_every_release(
    mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    halve_noise(monkeypatch)
    audit = audit_study(study(mode, evaluation=EVALUATED, privacy={"calibration_rounds": 1}))
    found = convicted(audit)
    releases = ("statistics", "training", "evaluation in training", "final evaluation")
    for release in (*releases, "attributions", "calibration"):
        assert (release, "noise, standard deviation") in found
    assert ("whole study", "epsilon, 20 rounds") in found
    assert audit.epsilon_low > 8.0


@pytest.mark.slow
@pytest.mark.parametrize(
    "cell",
    ["lstm", *(pytest.param(cell, marks=pytest.mark.slow) for cell in CELLS if cell != "lstm")],
)
def test_a_clip_doubled_for_one_cell_is_convicted_for_that_cell(
    cell: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = gradients.gradient_sum

    def doubled(model, data, chosen, clip_norm, *more):
        wrong = 2.0 if model.recurrent.cell == "lstm" and clip_norm is not None else 1.0
        return honest(model, data, chosen, clip_norm and clip_norm * wrong, *more)

    monkeypatch.setattr(gradients, "gradient_sum", doubled)
    monkeypatch.setattr(training, "gradient_sum", doubled)
    found = convicted(audit_study(study(cell=cell)))
    if cell == "lstm":
        assert ("training", "shift, 1 stay") in found
        assert ("training", "shift, 64 stays") in found
    else:
        assert found == set()


@pytest.mark.slow
def test_statistics_without_noise_are_convicted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics_round, "statistics_noise", lambda _: 0.0)
    audit = audit_study(study())
    found = convicted(audit)
    assert ("statistics", "noise, standard deviation") in found
    assert ("whole study", "epsilon, 20 rounds") in found
    assert not any(release == "training" for release, _ in found)


@pytest.mark.slow
def test_an_evaluation_without_noise_is_convicted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation_round, "metrics_noise", lambda *_, **__: 0.0)
    found = convicted(audit_study(study(evaluation=EVALUATED)))
    for release in ("evaluation in training", "final evaluation", "attributions"):
        assert (release, "noise, standard deviation") in found


@pytest.mark.slow
@pytest.mark.parametrize("mode", BOTH)
def test_sampling_without_replacement_is_convicted(
    mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fixed_size(patients: int, rate: float, source: Keystream) -> np.ndarray:
        order = np.argsort(source.uniform_float64(patients))
        return np.sort(order[: round(rate * patients)])

    monkeypatch.setattr(gradients, "sample_patients", fixed_size)
    monkeypatch.setattr(training, "sample_patients", fixed_size)
    found = convicted(audit_study(study(mode)))
    assert found == {("training", "sampling, variance ratio")}


@pytest.mark.slow
def test_sampling_more_than_is_charged_is_convicted(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = gradients.sample_patients
    monkeypatch.setattr(
        gradients, "sample_patients", lambda patients, rate, source: honest(patients, 0.4, source)
    )
    assert ("training", "sampling rate") in convicted(audit_study(study()))


@pytest.mark.slow
@pytest.mark.parametrize("mode", BOTH)
def test_clipping_per_stay_is_convicted(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = Bookkeeping.clipped_sums

    def per_stay(self, parameters, patient_N, patients, clip_norm, *more):
        rows = torch.arange(len(patient_N))
        return honest(self, parameters, rows, len(rows), clip_norm, *more)

    monkeypatch.setattr(Bookkeeping, "clipped_sums", per_stay)
    found = convicted(audit_study(study(mode)))
    assert ("training", "shift, 64 stays") in found
    assert ("training", "shift, 1 stay") not in found


@pytest.mark.slow
def test_counting_every_stay_as_a_patient_is_convicted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(validation_sums, "stay_weights", lambda p: np.ones(len(p.y_N)))
    found = convicted(audit_study(study(evaluation=EVALUATED)))
    assert ("final evaluation", "shift, 4 stays") in found


@pytest.mark.slow
def test_a_fresh_accountant_every_round_is_convicted(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = store.largest_spent
    monkeypatch.setattr(
        store, "largest_spent", lambda releases, delta: honest(list(releases)[-1:], delta)
    )
    summary = store.account_of
    monkeypatch.setattr(
        store, "account_of", lambda entries, *bound: summary(list(entries)[-1:], *bound)
    )
    found = convicted(audit_study(study()))
    assert {release for release, _ in found} == {"ledger"}
    assert ("ledger", "spent beyond its budget") in found
    assert len(found) == 3


@pytest.mark.slow
def test_a_ledger_made_anew_for_every_round_is_convicted(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = ledger_audit.Ledger

    def anew(path: Path, **settings: object) -> store.Ledger:
        path.unlink(missing_ok=True)
        return opened(path, **settings)

    monkeypatch.setattr(ledger_audit, "Ledger", anew)
    found = {release for release, _ in convicted(audit_study(study()))}
    assert found == {"ledger"}


@pytest.mark.slow
def test_one_keystream_for_every_round_is_convicted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(randomness, "secrets", SimpleNamespace(token_bytes=bytes))
    found = convicted(audit_study(study()))
    assert ("statistics", "noise, correlation") in found
    assert ("training", "noise, correlation") in found


@pytest.mark.slow
def test_noise_of_another_shape_is_convicted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Laplace noise of the same standard deviation on the statistics."""

    class Laplace(Keystream):
        def standard_normal(self, count: int) -> np.ndarray:
            uniform = self.uniform_float64(count) - 0.5
            return -np.sign(uniform) * np.log1p(-2 * np.abs(uniform)) / np.sqrt(2)

    monkeypatch.setattr(randomness, "Keystream", Laplace)
    found = convicted(audit_study(study()))
    assert ("statistics", "noise, distance from Gaussian") in found
    assert ("statistics", "noise, standard deviation") not in found


@pytest.mark.slow
def test_a_canary_that_no_clip_touches_is_no_proof() -> None:
    """A gradient far below the clip norm would be the same without clipping."""
    audit = audit_study(study(privacy={"clip_norm": 1e6}))
    assert convicted(audit) == set()
    assert ("training", "shift, 1 stay") in blind(audit)


def test_studies_without_privacy_and_impossible_confidences_are_refused() -> None:
    with pytest.raises(SettingsError, match="mode none"):
        audit_study(study("none", training={"local_steps": 1}))
    with pytest.raises(SettingsError, match="below 1"):
        audit_study(study(), confidence=1.0)
