"""Evaluation by secure sums: near the exact figures on real studies, and no patient's risk sent."""

from collections.abc import Hashable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from consilium.client.records.features import to_tensors
from consilium.client.round import attribution_sums as attributions
from consilium.client.round import evaluation_round
from consilium.client.round.predictions import predict
from consilium.shared.model.network import build_model
from consilium.shared.model.normalisation import Normalisation
from consilium.shared.model.weight_vector import load_vector
from consilium.shared.rounds.attribution_bands import LARGEST_EFFECT
from consilium.shared.rounds.contents import Purpose, RoundConfiguration, vector_spec
from consilium.shared.study.definition import Study, load_study, with_changes
from consilium.shared.study.input_names import feature_names
from consilium.simulations.cohorts.hospitals import SyntheticHospital
from consilium.simulations.cohorts.study_cohorts import cohorts_for
from consilium.simulations.federation.run import Federation
from consilium.simulations.figures.held_out import HeldOut
from tests.simulations.judging import validation_patients
from tests.simulations.watching import as_numbers, sent_in_every_run, watch_messages

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared" / "data"
STUDIES = sorted((ROOT / "studies").glob("*.toml"))


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Every array and value of every message, in both directions, as bytes."""
    return watch_messages(monkeypatch)


@pytest.mark.slow
def test_no_message_of_a_run_holds_any_patients_risk(tmp_path: Path, watched: list[bytes]) -> None:
    small = _small()
    sources = cohorts_for(small, None).sites
    test = HeldOut.read(cohorts_for(small, None).test, small)

    def run(number: int) -> dict[Hashable, bytes]:
        # Another seed in each run: one of hundreds of edges may equal one of hundreds of risks.
        study = with_changes(small, study={"seed": small.seed + number})
        federation = Federation(study, sources, tmp_path / str(number), workers=2, protocol=True)
        finished = federation.train(lambda _: None, test)
        weights_D = finished.state.server.model_weights.astype("<f4")
        assert weights_D.tobytes() in b"\0".join(watched)  # we would see it
        model = build_model(study, len(feature_names(study)), seed=study.seed)
        load_vector(model, weights_D)
        normalisation = Normalisation.from_bytes(finished.state.normalisation, study)
        sought: dict[Hashable, bytes] = {}
        validated = 0
        for site, cohort in federation._cohorts.items():
            assert cohort.validation is not None
            tensors = to_tensors(cohort.validation, normalisation, study)
            risks = predict(model, tensors.x_NTF, tensors.mask_NT).ravel()
            validated += len(risks)
            for place, risk in enumerate(risks):
                sought |= as_numbers((site, place), risk)
                sought[site, place, "text"] = f"{risk:.6f}".encode()
        counted = finished.history[-1]["validation"]
        assert counted["patients"] == pytest.approx(validated)
        table_2B = [
            np.fromstring(counted["counts"][0][kind], sep=" ")
            for kind in ("negatives", "positives")
        ]
        assert np.sum(table_2B) == pytest.approx(validated, rel=1e-6)
        assert len(table_2B[0]) == study.bins
        return sought

    assert not sent_in_every_run(run, watched)


@pytest.mark.slow
def test_no_message_of_a_run_holds_any_patients_attributions(
    tmp_path: Path, watched: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What each patient adds, and what each site adds up, is looked for in every message."""
    study = with_changes(_small(), evaluation={"explained_patients": 30})
    rows: list[np.ndarray] = []
    sums: list[np.ndarray] = []
    clip, add_up = attributions.clip_rows, evaluation_round.attribution_sums

    def clipping(given: np.ndarray, norm: float) -> np.ndarray:
        rows.append(clip(given, norm))
        return rows[-1]

    def adding(*arguments, **named) -> np.ndarray:
        sums.append(add_up(*arguments, **named))
        return sums[-1]

    monkeypatch.setattr(attributions, "clip_rows", clipping)
    monkeypatch.setattr(evaluation_round, "attribution_sums", adding)
    federation = Federation(
        study, cohorts_for(study, None).sites, tmp_path, workers=2, protocol=True
    )
    last = federation.train(lambda _: None, validation_patients(federation, study)).history[-1]
    told = last["validation"]["attributions"]
    assert len(sums) == len(study.sites)  # once each, however often the last model is evaluated
    assert told["patients"] == pytest.approx(sum(one[0] for one in sums))
    expected = sum(sums)[2:] * LARGEST_EFFECT / told["patients"]
    assert np.ravel(list(told["effects"].values())) == pytest.approx(expected, abs=1e-4)
    sent = b"\0".join(watched)
    segment = next(
        s for s in vector_spec(study, RoundConfiguration(purpose=Purpose.EVALUATION),
                               parameters=9, largest_size=20).segments if s.name == "attributions"
    )  # fmt: skip
    for values in (*(row[row != 0] for part in rows for row in part), *(one[2:] for one in sums)):
        assert len(values) > 8
        # Sixteen bytes and more are in no mask by chance: 2^22 bytes, 2^12 patterns, 2^-94.
        for kind in ("<f4", "<f8", ">f4", ">f8"):
            assert np.asarray(values[:4], dtype=kind).tobytes() not in sent
        whole = np.round(values * segment.scale).astype("<u4")
        assert whole[:4].tobytes() not in sent  # as the sum encodes it, before its mask


@pytest.mark.slow
def test_a_hospitals_own_figures_are_told_only_where_its_policy_releases_them(
    tmp_path: Path,
) -> None:
    study = with_changes(_small(), evaluation={"per_site": True, "smallest_group": 3})
    told = {}
    for own in (True, False):
        federation = Federation(
            study, cohorts_for(study, None).sites, tmp_path / str(own), workers=2
        )
        federation._policy = replace(federation._policy, release_own_figures=own)
        last = federation.train(lambda _: None, validation_patients(federation, study)).history[-1]
        told[own] = {g["name"]: g for g in last["validation"]["groups"]}
    for site in study.sites:
        assert told[True][site]["released"]
        assert told[True][site]["patients"] > 0
        assert told[False][site]["patients"] == 0
        assert told[False][site]["negatives"] is None
    assert told[False]["all"] == told[True]["all"]
    sizes = [told[True][site]["patients"] for site in study.sites]
    assert sum(sizes) == pytest.approx(told[True]["all"]["patients"])


@pytest.mark.slow
def test_what_a_site_sends_has_the_same_size_whatever_its_number_of_patients(
    tmp_path: Path,
) -> None:
    study = _small()
    sources = cohorts_for(study, None).sites
    sizes = {}
    for name, sites in {"as made": sources, "first thrice": dict(sources)}.items():
        if name == "first thrice":
            sites["north"] = SyntheticHospital(0, seed=study.seed, share=3.0)
        federation = Federation(study, sites, tmp_path / name, workers=2)
        test = HeldOut.read(cohorts_for(study, None).test, study)
        last = federation.train(lambda _: None, test).history[-1]
        assert last["purpose"] == "evaluation"
        sizes[name] = last["bytes_up"]["north"]
    assert sizes["as made"] == pytest.approx(sizes["first thrice"], abs=64)


def _small() -> Study:
    study = load_study(ROOT / "studies" / "demo.toml")
    return with_changes(
        study,
        study={"rounds": 1, "sites": ["north", "east", "south", "west"]},
        data={"window_h": 12},
        model={"hidden": 4},
        privacy={"mode": "none"},
        evaluation={"validation_fraction": 0.3},
    )
