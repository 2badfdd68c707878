"""Evaluation by secure sums: near the exact figures on real studies, and no patient's risk sent."""

from collections.abc import Hashable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from consilium.client.records.cohort import read_cohort, require_suitable
from consilium.client.records.features import to_tensors
from consilium.client.round import attribution_sums as attributions
from consilium.client.round import evaluation_round
from consilium.client.round.predictions import predict
from consilium.client.sources.common.source import Source
from consilium.shared.crypto.transcript import digest
from consilium.shared.errors import DataError
from consilium.shared.model.network import build_model
from consilium.shared.model.normalisation import Normalisation
from consilium.shared.model.weight_vector import load_vector
from consilium.shared.rounds.attribution_bands import LARGEST_EFFECT
from consilium.shared.rounds.contents import Purpose, RoundConfiguration, vector_spec
from consilium.shared.study.definition import Study, load_study, with_changes
from consilium.shared.study.input_names import feature_names
from consilium.simulations.cohorts.hospitals import SyntheticHospital
from consilium.simulations.cohorts.study_cohorts import cohorts_for
from consilium.simulations.cohorts.study_records import folder_for, missing_folder
from consilium.simulations.federation.run import Federation
from consilium.simulations.figures.central import merge
from consilium.simulations.figures.held_out import HeldOut
from tests.simulations.watching import as_numbers, sent_in_every_run, watch_messages

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared" / "data"
STUDIES = sorted((ROOT / "studies").glob("*.toml"))
ROUNDING = 1e-4  # weights such as 1/3 are rounded at random on their way into the sum
OTHER_FIGURES = ("regression", "survival")  # survival: test_survival_counts.py


def _with_risks() -> list[Path]:
    """One study of each collection and kind of task; others have the same records."""
    found = {}
    for path in STUDIES:
        task = load_study(path).task
        if task.kind not in OTHER_FIGURES:
            found.setdefault((path.stem.partition("-")[0], task.kind, task.per_step), path)
    return list(found.values())


WITH_RISKS = _with_risks()


@pytest.mark.slow
@pytest.mark.parametrize("path", WITH_RISKS, ids=lambda path: path.stem)
def test_the_auroc_from_sums_is_within_its_bound_of_the_exact_one_and_the_bound_below_0_002(
    path: Path, tmp_path: Path
) -> None:
    """Through the secure sum, after one round: that model's risks crowd as no finished one's do."""
    study = with_changes(
        load_study(path),
        study={"rounds": 1},
        data={"minimum_patients": 1},
        privacy={"mode": "none"},
        evaluation={"validation_fraction": 0.2},
    )
    if missing_folder(study, DATA, path) is not None:
        pytest.skip(f"the records of {study.name} are not beside the repository")
    sources = cohorts_for(study, folder_for(study, DATA, path), path).sites
    study = with_changes(study, study={"sites": _able_to_hold_out(study, sources)})
    federation = Federation(study, sources, tmp_path, workers=2)
    test = _validation_patients(federation, study)
    finished = federation.train(lambda _: None, test)
    told = finished.history[-1]["validation"]
    assert told["patients"] == pytest.approx(test.grid.patients)
    for output, (metrics, exact) in enumerate(
        zip(told["outputs"], _exact_aurocs(test, finished.scores), strict=True)
    ):
        assert (metrics is None) == np.isnan(exact), output
        if metrics is not None:
            assert metrics["auroc_error"] < 0.002
            assert abs(metrics["auroc"] - exact) <= metrics["auroc_error"] + ROUNDING


def _able_to_hold_out(study: Study, sources: Mapping[str, Source]) -> tuple[str, ...]:
    """Sites that can still train without a fifth of their patients; hospitals of ten may not."""
    able = []
    for site in study.sites:
        with suppress(DataError):
            split_key = digest("split", study.seed, site)
            cohort = read_cohort(sources[site], study, site=site, split_key=split_key)
            require_suitable(cohort, study, site=site, minimum_patients=1)
            able.append(site)
    assert len(able) > len(study.sites) / 2
    return tuple(able)


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
    last = federation.train(lambda _: None, _validation_patients(federation, study)).history[-1]
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
        last = federation.train(lambda _: None, _validation_patients(federation, study)).history[-1]
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


def _validation_patients(federation: Federation, study: Study) -> HeldOut:
    """The patients that the sites keep out of training, whom a researcher holds all of."""
    grids = [c.validation for c in federation._cohorts.values() if c.validation is not None]
    grid = merge(grids)
    return HeldOut(study=study, grid=grid, groups=("all",), group_N=np.zeros(len(grid.y_N), int))


def _exact_aurocs(test: HeldOut, scores: np.ndarray) -> list[float]:
    """Of every output; a patient's stays, and the steps of a stay, share the patient's weight."""
    grid, task = test.grid, test.study.task
    weight = 1 / np.bincount(grid.patient_N)[grid.patient_N]
    counted = np.ones(len(weight), dtype=np.bool_)
    if task.per_step:
        counted = grid.mask_NT
        weight = np.broadcast_to((weight / counted.sum(axis=1))[:, None], counted.shape)
    exact = []
    for output in range(task.outputs):
        label = grid.y_N[..., output] if task.kind == "multilabel" else grid.y_N
        used = counted & ~np.isnan(label)
        outcome = label[used] == (output if task.kind == "multiclass" else 1)
        both = len(np.unique(outcome)) == 2
        risk = scores[..., output][used]
        exact.append(roc_auc_score(outcome, risk, sample_weight=weight[used]) if both else np.nan)
    return exact


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
