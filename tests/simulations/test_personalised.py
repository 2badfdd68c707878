"""Federations whose sites keep a part for themselves: it helps where sites differ, and stays."""

from collections.abc import Hashable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from consilium.client.bedside.recalibration import fit_at_site
from consilium.client.hospital.personal_store import PersonalStore
from consilium.client.records.features import PatientTensors, to_tensors
from consilium.client.round.own_part import own_trained
from consilium.client.sources.common.source import Counted, Patient, Stay, Tally
from consilium.server.study.checkpoints import load_checkpoint
from consilium.shared.errors import MessageError
from consilium.shared.model.network import build_model
from consilium.shared.model.normalisation import Normalisation
from consilium.shared.model.own_weights import shared_weights
from consilium.shared.model.weight_vector import load_vector, to_vector
from consilium.shared.secure_sum.messages import MaskedUpdate
from consilium.shared.study.definition import Study, parse_study, with_changes
from consilium.shared.study.input_names import feature_names
from consilium.simulations.cohorts.cohorts import Cohorts
from consilium.simulations.experiments.recalibrating import (
    recalibrating,
    recalibration_sentences,
    trained_of,
)
from consilium.simulations.federation.run import Federation, Finished
from consilium.simulations.figures.held_out import HeldOut
from tests.simulations.watching import as_numbers, sent_in_every_run, watch_messages

TEXT = """
name = "differ"
title = "Hospitals that differ"
rounds = 4
seed = 3
sites = ["north", "east", "south", "west"]
[data]
source = "made-up"
label = "y"
window_h = 2
minimum_patients = 5
[model]
cell = "gru"
hidden = 6
layer_norm = true
[training]
local_steps = 8
sampling_rate = 0.5
learning_rate = 0.5
[privacy]
mode = "none"
[evaluation]
validation_fraction = 0.3
passes = 1
[variables]
x = { unit = "1", low = -10, high = 10, center = 0, spread = 1 }
z = { unit = "1", low = -10, high = 10, center = 0, spread = 1 }
"""
STUDY = parse_study(TEXT)
OPPOSITE = ("south", "west")  # there the outcome follows from -x


@dataclass
class MadeUp(Counted):
    """Patients whose outcome follows from x, or from -x in some hospitals."""

    site: str
    patients: int
    cohort: int
    name = "made-up"

    def __post_init__(self) -> None:
        self._tally = Tally()

    def read_patients(self, study: Study) -> Iterator[Patient]:
        number = study.sites.index(self.site)
        stream = np.random.default_rng([number, self.cohort])
        sign = -1.0 if self.site in OPPOSITE else 1.0
        for patient in range(self.patients):
            x, z = stream.normal(size=2)
            stay = Stay(
                stay_id=f"{self.site}-{self.cohort}-{patient}",
                hours_E=np.array([0.0, 0.0]),
                variable_E=np.array([0, 1]),
                value_E=np.array([x, z], dtype=np.float32),
                label=float(stream.random() < 1 / (1 + np.exp(-3 * sign * x))),
            )
            yield Patient(patient_id=stay.stay_id, stays=(stay,))


SOURCES = {site: MadeUp(site, 60, 0) for site in STUDY.sites}


@pytest.fixture(scope="module")
def test_cohort() -> HeldOut:
    return HeldOut.read({site: MadeUp(site, 150, 1) for site in STUDY.sites}, STUDY)


def train(
    study: Study, test: HeldOut, folder: Path, *, protocol: bool = False
) -> tuple[Finished, Federation]:
    federation = Federation(study, SOURCES, folder, workers=2, protocol=protocol)
    return federation.train(lambda _: None, test), federation


def auroc(finished: Finished) -> float:
    return finished.test.figures["auroc"].value


def with_parts(*parts: str, **tables: Any) -> Study:
    return with_changes(STUDY, personalisation={"parts": parts}, **tables)


@pytest.fixture(scope="module")
def one_model(test_cohort: HeldOut, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return train(STUDY, test_cohort, tmp_path_factory.mktemp("one"))[0]


@pytest.mark.slow
@pytest.mark.parametrize("parts", [("head",), ("head", "norm", "inputs")])
def test_where_hospitals_contradict_each_other_own_heads_beat_one_model(
    test_cohort: HeldOut, one_model: Finished, tmp_path: Path, parts: tuple[str, ...]
) -> None:
    finished, _ = train(with_parts(*parts), test_cohort, tmp_path)
    assert auroc(one_model) < 0.7
    assert auroc(finished) > 0.85
    told = finished.history[-1]["validation"]["outputs"][0]["auroc"]
    assert told > 0.8  # evaluation by sums judges each site's patients by its own model


@pytest.mark.slow
def test_a_second_model_beats_the_one_model_and_the_global_one_is_as_without_it(
    test_cohort: HeldOut, one_model: Finished, tmp_path: Path
) -> None:
    ditto = {"ditto": {"pull": 0.2, "learning_rate": 0.5}}
    own, _ = train(with_changes(STUDY, personalisation=ditto), test_cohort, tmp_path)
    assert auroc(own) > 0.85 > auroc(one_model)
    assert np.array_equal(own.state.server.weights_D, one_model.state.server.weights_D)


@pytest.mark.slow
def test_each_hospital_recalibrates_the_model_that_it_uses(
    test_cohort: HeldOut, tmp_path: Path
) -> None:
    sources = {site: MadeUp(site, 300, 0) for site in STUDY.sites}
    study = with_parts("head", study={"rounds": 2})
    federation = Federation(study, sources, tmp_path, workers=2)
    finished = federation.train(lambda _: None, test_cohort)
    cohorts = Cohorts(sites=sources, test=sources, described="made up")
    told = recalibrating(study, cohorts, test_cohort, finished)
    assert told is not None
    assert told["across"] is None
    assert [one["site"] for one in told["sites"]] == list(study.sites)
    shared, differ = trained_of(study, finished.state), []
    for one in told["sites"]:
        own = own_trained(shared, federation._states[one["site"]].personal)
        (fit,) = fit_at_site(own, finished.validation[one["site"]])
        assert one["fitted"] == [asdict(fit.recalibration)]
        (other,) = fit_at_site(shared, finished.validation[one["site"]])
        differ.append(other.recalibration != fit.recalibration)
    assert any(differ)
    (sentence,) = recalibration_sentences({"recalibration": told, "verdicts": []})
    assert sentence.startswith("Recalibrated at each hospital by its own validation patients, ")
    no_validation = with_changes(study, evaluation={"validation_fraction": 0.0})
    assert recalibrating(no_validation, cohorts, test_cohort, finished) is None


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Every array and value of every message, in both directions, as bytes."""
    return watch_messages(monkeypatch)


def vector_bytes(sent: list[bytes]) -> set[int]:
    """How long the masked vectors of training rounds were."""
    found = set()
    for body in sent:
        try:
            masked = MaskedUpdate.from_bytes(body, max_bytes=len(body))
        except MessageError:
            continue
        if masked.round > 1:
            found.add(len(masked.packed))
    return found


@pytest.mark.slow
def test_own_weights_are_in_no_message_and_no_vector_has_room_for_them(
    test_cohort: HeldOut, sent: list[bytes], tmp_path: Path
) -> None:
    shorter = {"evaluation": {"validation_fraction": 0.0}, "study": {"rounds": 2}}
    train(with_changes(STUDY, **shorter), test_cohort, tmp_path / "one", protocol=True)
    (whole,) = vector_bytes(sent)
    sent.clear()
    study = with_parts("head", "norm", **shorter)

    def run(number: int) -> dict[Hashable, bytes]:
        finished, federation = train(study, test_cohort, tmp_path / f"own-{number}", protocol=True)
        weights_D = finished.state.server.weights_D
        begun = weights_D[~shared_weights(study, weights_D.size)]
        assert vector_bytes(sent) == {whole - 4 * len(begun)}
        assert begun[:6].tobytes() in b"\0".join(sent)  # we would see
        sought: dict[Hashable, bytes] = {}
        for site in study.sites:
            kept = federation._states[site].personal.latest(study.digest)["own_weights"]
            trained = kept != begun
            assert trained.sum() > len(kept) / 2
            for place in np.flatnonzero(trained):
                sought |= as_numbers((site, place), kept[place])
        return sought

    assert not sent_in_every_run(run, sent)


@pytest.mark.slow
def test_a_run_that_was_cut_off_goes_on_with_the_same_own_part(
    test_cohort: HeldOut, tmp_path: Path
) -> None:
    study = with_parts("head", "inputs", evaluation={"validation_fraction": 0.0})

    class CutError(Exception):
        pass

    shown: list[dict[str, Any]] = []

    def cut(record: dict[str, Any]) -> None:
        shown.append(record)
        if len(shown) == 4:
            raise CutError

    with pytest.raises(CutError):
        Federation(study, SOURCES, tmp_path, workers=2).train(cut, test_cohort)
    store = PersonalStore(tmp_path / "sites" / "north" / "personal")
    before = store.latest(study.digest)
    assert set(before) == {"own_weights", "statistics"}
    finished, _ = train(study, test_cohort, tmp_path)
    after = store.latest(study.digest)
    assert np.array_equal(before["statistics"], after["statistics"])
    assert not np.array_equal(before["own_weights"], after["own_weights"])
    assert len(list((tmp_path / "sites" / "north" / "personal").iterdir())) == 1
    assert auroc(finished) > 0.8


@pytest.mark.slow
def test_own_statistics_are_the_noisy_ones_that_were_charged(
    test_cohort: HeldOut, tmp_path: Path
) -> None:
    """Exact ones would carry every patient into every other patient's gradient, uncharged."""
    private = with_parts("inputs", privacy={"mode": "site"}, study={"rounds": 1})
    _, federation = train(private, test_cohort, tmp_path)
    kept = [
        federation._states[site].personal.latest(private.digest)["statistics"]
        for site in private.sites
    ]
    present = np.array([own[:2] for own in kept])  # how many patients each variable was measured in
    assert (present != np.round(present)).all()
    assert next(iter(federation.ledger("north").entries())).release.purpose == "statistics"


def scaffold(study: Study, federation: Federation, normalisation: bytes) -> np.ndarray:
    """SCAFFOLD as published (algorithm 1, option II, all sites take part), on whole cohorts."""
    decoded = Normalisation.from_bytes(normalisation, study)
    steps, rate = study.training.local_steps, study.training.learning_rate
    model = build_model(study, len(feature_names(study)), seed=study.seed)
    data = [to_tensors(federation._cohorts[site].training, decoded, study) for site in study.sites]
    share = np.array([tensors.patients for tensors in data], dtype=np.float64)
    share /= share.sum()

    def gradient(weights: np.ndarray, tensors: PatientTensors) -> np.ndarray:
        load_vector(model, weights.astype(np.float32))
        logits = model(tensors.x_NTF, tensors.mask_NT)
        loss = model.loss_per_stay(logits, tensors.y_N, tensors.mask_NT).mean()
        parts = torch.autograd.grad(loss, list(model.parameters()))
        return torch.cat([part.flatten() for part in parts]).double().numpy()

    x = to_vector(model).astype(np.float64)
    c, c_i = np.zeros_like(x), [np.zeros_like(x) for _ in data]
    for _ in range(study.rounds):
        moves, changes = [], []
        for number, tensors in enumerate(data):
            y = x.copy()
            for _ in range(steps):
                y -= rate * (gradient(y, tensors) - c_i[number] + c)
            renewed = c_i[number] - c + (x - y) / (steps * rate)
            moves.append(y - x)
            changes.append(renewed - c_i[number])
            c_i[number] = renewed
        x = x + share @ np.array(moves)
        c = c + share @ np.array(changes)
    return x


SCAFFOLD = with_changes(
    STUDY,
    study={"rounds": 3},
    training={"sampling_rate": 1.0, "local_steps": 3, "learning_rate": 0.2},
    evaluation={"validation_fraction": 0.0},
)


@pytest.mark.slow
def test_control_variates_are_scaffold_as_published(test_cohort: HeldOut, tmp_path: Path) -> None:
    study = with_changes(SCAFFOLD, training={"control_variates": True})
    finished, federation = train(study, test_cohort, tmp_path / "own")
    assert finished.state.server.control_D.shape == finished.state.server.weights_D.shape
    expected = scaffold(study, federation, finished.state.normalisation)
    plain, _ = train(SCAFFOLD, test_cohort, tmp_path / "plain")
    begun = to_vector(build_model(study, len(feature_names(study)), seed=study.seed))
    reached = finished.state.server.weights_D
    assert np.linalg.norm(reached - begun) > 0.1
    differs = np.linalg.norm(plain.state.server.weights_D - reached)
    assert differs > 0.01
    assert np.linalg.norm(reached - expected) < 0.02 * differs


@pytest.mark.slow
def test_a_control_variate_stays_at_its_site_and_costs_no_epsilon_beside_the_update(
    test_cohort: HeldOut, sent: list[bytes], tmp_path: Path
) -> None:
    private = with_changes(SCAFFOLD, privacy={"mode": "site"}, training={"control_variates": True})

    def run(number: int) -> dict[Hashable, bytes]:
        finished, federation = train(
            private, test_cohort, tmp_path / f"own-{number}", protocol=True
        )
        size = finished.state.server.weights_D.size
        sought: dict[Hashable, bytes] = {}
        for site in private.sites:
            kept = federation._states[site].personal.latest(private.digest)
            assert set(kept) == {"control"}
            assert kept["control"].size == size
            for place, value in enumerate(kept["control"][:20]):
                sought |= as_numbers((site, place), value)
            purposes = [entry.release.purpose for entry in federation.ledger(site).entries()]
            assert purposes == ["statistics", "training", "training", "training"]
            spent = federation.ledger(site).summary().total.spent
            assert spent == pytest.approx(private.privacy.epsilon, rel=1e-3)
            assert spent <= private.privacy.epsilon
        return sought

    assert not sent_in_every_run(run, sent)


@pytest.mark.slow
def test_a_run_with_control_variates_that_was_cut_off_goes_on_with_them(
    test_cohort: HeldOut, tmp_path: Path
) -> None:
    study = with_changes(SCAFFOLD, training={"control_variates": True})
    finished, _ = train(study, test_cohort, tmp_path)
    found = load_checkpoint(tmp_path)
    assert found is not None
    assert np.array_equal(found.state.server.control_D, finished.state.server.control_D)
    assert np.abs(found.state.server.control_D).max() > 0
