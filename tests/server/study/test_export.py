"""A finished study's model leaves the coordinator's folder signed, and only when it is finished."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from consilium.server.cli import app
from consilium.server.coordinator.folder import CoordinatorFolder, Settings
from consilium.server.figures.groups import as_text
from consilium.server.study.aggregation import start
from consilium.server.study.checkpoints import Checkpoint, save_checkpoint
from consilium.server.study.export import export_model, onnx_part, recalibrations_of, validation_of
from consilium.server.study.run import RunState
from consilium.shared.audit.log import FILE_NAME
from consilium.shared.audit.own_log import open_audit
from consilium.shared.crypto.keys import IdentityKey, Roster
from consilium.shared.crypto.transcript import sha256
from consilium.shared.errors import SettingsError
from consilium.shared.export.onnx_check import largest_difference
from consilium.shared.export.signed_model import Trained, load_signed_model
from consilium.shared.figures.recalibration import Recalibration
from consilium.shared.model.network import build_model
from consilium.shared.model.normalisation import Normalisation
from consilium.shared.model.weight_vector import to_vector
from consilium.shared.study.definition import Study, parse_study
from consilium.shared.study.input_names import feature_names
from tests.signed_models import EDGES, some_counts, some_trained
from tests.study_text import TEXT, small_study

STUDY = parse_study(TEXT)
EVALUATED = {
    "purpose": "evaluation",
    "void": None,
    "sites": ["a", "b", "c"],
    "epsilon": 7.5,
    "validation": {
        "patients": 1000.0,
        "edges": [as_text(EDGES)],
        "counts": [
            {"negatives": as_text(some_counts()[0]), "positives": as_text(some_counts()[1])}
        ],
    },
}


def coordinator(path: Path, study: Study, checkpoint: Checkpoint | None) -> CoordinatorFolder:
    settings = Settings(name="c", host="127.0.0.1", port=9092)
    folder = CoordinatorFolder.make(path, settings, ("127.0.0.1",))
    open_audit(folder)
    members = tuple((site, IdentityKey.generate().public) for site in study.sites)
    folder.register().submit(
        digest=study.digest,
        name=study.name,
        text=TEXT.encode(),
        roster=Roster(members),
        signature=b"s" * 64,
        now=0.0,
    )
    if checkpoint is not None:
        save_checkpoint(folder.study(study.digest), checkpoint)
    return folder


def finished(study: Study) -> Checkpoint:
    model = build_model(study, len(feature_names(study)), seed=9)
    return Checkpoint(
        study_digest=study.digest,
        run_id=b"r" * 16,
        state=RunState(
            server=start(to_vector(model)),
            normalisation=Normalisation.reference(study).to_bytes(),
            trained=10,
            finished=True,
        ),
        history=(EVALUATED,),
    )


def export(*arguments: str | Path) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["export", *map(str, arguments)])
    return result.exit_code, result.output + str(result.exception or "")


def test_the_exported_model_is_the_finished_one_signed_by_the_coordinator(tmp_path: Path) -> None:
    folder = coordinator(tmp_path / "c", STUDY, finished(STUDY))
    out = tmp_path / "model"
    code, told = export("small", "--out", out, "--folder", folder.path)
    assert code == 0, told
    assert folder.identity().public.hex() in told
    found = load_signed_model(out, folder.identity().public)
    expected = build_model(STUDY, len(feature_names(STUDY)), seed=9)
    assert np.array_equal(to_vector(found.trained.model), to_vector(expected))
    assert (found.manifest.epsilon, found.manifest.delta) == (7.5, STUDY.privacy.delta)
    assert not found.manifest.simulated
    assert found.trained.validation is not None
    assert found.trained.validation.patients == 1000
    assert len(found.trained.validation.bands[0]) == 10
    assert "exported: manifest" in (folder.path / FILE_NAME).read_text()


def test_a_study_without_a_finished_model_has_none_to_export(tmp_path: Path) -> None:
    folder = coordinator(tmp_path / "c", STUDY, None)
    assert "has not begun" in export("small", "--out", tmp_path / "m", "--folder", folder.path)[1]
    begun = finished(STUDY)
    unfinished = replace(begun, state=replace(begun.state, finished=False, trained=4))
    save_checkpoint(folder.study(STUDY.digest), unfinished)
    code, told = export("small", "--out", tmp_path / "m", "--folder", folder.path)
    assert (code, "4 of 10 rounds are done; export it when it is finished" in told) == (1, True)
    assert not (tmp_path / "m").exists()
    with pytest.raises(SettingsError, match="no study 'other'"):
        CliRunner().invoke(
            app,
            ["export", "other", "--out", str(tmp_path / "m"), "--folder", str(folder.path)],
            catch_exceptions=False,
        )


def test_a_model_without_the_parts_that_sites_keep_has_no_onnx_form() -> None:
    study = small_study(personalisation={"parts": ["head"]})
    with pytest.raises(SettingsError, match=r"leaves the model's head .* export it without --onnx"):
        onnx_part(some_trained(study))


def test_a_cell_without_an_onnx_operator_is_refused_by_name() -> None:
    study = small_study(model={"cell": "gru-d"})
    with pytest.raises(SettingsError, match="no operator for cell 'gru-d'; export it without"):
        onnx_part(some_trained(study))


def test_summaries_of_every_step_are_refused_by_name() -> None:
    branches = [{"kind": "linear"}, {"kind": "summary"}]
    study = small_study(model={"branches": branches}, task={"per_step": True})
    with pytest.raises(SettingsError, match="no operator for running minima of every step; export"):
        onnx_part(some_trained(study))


def test_a_model_is_exported_in_onnx_form_only_when_it_scores_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = coordinator(tmp_path / "c", STUDY, finished(STUDY))
    code, told = export("small", "--out", tmp_path / "m", "--onnx", "--folder", folder.path)
    assert code == 0, told
    found = load_signed_model(tmp_path / "m", folder.identity().public)
    content = (tmp_path / "m" / "model.onnx").read_bytes()
    assert found.manifest.parts["model.onnx"] == sha256(content).hex()
    assert largest_difference(content, found.trained.model, 48) < 1e-5
    with torch.no_grad():
        found.trained.model.head.bias += 0.001
    assert largest_difference(content, found.trained.model, 48) > 1e-5
    monkeypatch.setattr("consilium.server.study.export.LARGEST_DIFFERENCE", -1.0)
    code, told = export("small", "--out", tmp_path / "n", "--onnx", "--folder", folder.path)
    assert (code, "differ from PyTorch's by" in told) == (1, True)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    code, told = export("small", "--out", tmp_path / "n", "--onnx", "--folder", folder.path)
    assert (code, "pip install 'consilium-fl[onnx]'" in told) == (1, True)
    assert not (tmp_path / "n").exists()


def test_without_a_last_evaluation_the_manifest_claims_nothing() -> None:
    trained_only = {**EVALUATED, "purpose": "training"}
    void = {**EVALUATED, "void": "too few sites", "validation": None}
    assert validation_of(STUDY, ()) is None
    assert validation_of(STUDY, (trained_only, void)) is None
    regression = small_study(task={"kind": "regression", "center": 5.0, "spread": 2.0})
    told = validation_of(regression, ({**EVALUATED, "validation": {"patients": 9, "rmse": [1.5]}},))
    assert told is not None
    assert (told.errors, told.bands) == ((1.5,), ())


def test_a_model_leaves_recalibrated_by_the_counts_of_the_last_evaluation_when_asked(
    tmp_path: Path,
) -> None:
    plain = small_study(privacy={"mode": "none"})
    done = finished(plain)
    key = IdentityKey.from_seed(b"k" * 32)
    counts = some_counts()
    doubled = {  # the outcome twice as frequent as the risks say
        **EVALUATED["validation"],
        "counts": [{"negatives": as_text(counts[0]), "positives": as_text(2 * counts[1])}],
    }
    wrong = replace(done, history=({**EVALUATED, "validation": doubled},))

    def export(checkpoint: Checkpoint, name: str, **how: bool) -> Trained:
        export_model(plain, checkpoint, key, tmp_path / name, simulated=False, **how)
        return load_signed_model(tmp_path / name, key.public).trained

    before, after = export(wrong, "before"), export(wrong, "after", recalibrate=True)
    assert before.recalibration is None
    told = after.recalibration
    assert told is not None
    assert told.on == "validation patients of 3 sites, from secure sums"
    assert told.intercepts[0] == pytest.approx(np.log(2), abs=0.15)
    x = torch.randn(4, 3, len(feature_names(plain)), generator=torch.Generator().manual_seed(0))
    mask = torch.ones(4, 3, dtype=torch.bool)
    with torch.no_grad():
        logits = [one.model(x, mask)[:, 0].numpy() for one in (before, after)]
    changed = told.slopes[0] * logits[0] + told.intercepts[0]
    assert logits[1] == pytest.approx(changed, abs=1e-5)
    assert before.validation is not None
    assert after.validation is not None
    one = Recalibration(slope=told.slopes[0], intercept=told.intercepts[0])
    for old, new in zip(before.validation.bands[0], after.validation.bands[0], strict=True):
        assert (new.patients, new.observed) == (old.patients, old.observed)
        if old.high < 1:
            assert new.high == pytest.approx(one.apply(np.array([old.high]))[0], abs=1e-6)
    assert export(done, "good", recalibrate=True).recalibration is None  # nothing is wrong with it
    with pytest.raises(SettingsError, match="no evaluation of the finished model is there"):
        export(replace(done, history=()), "none", recalibrate=True)
    regression = small_study(task={"kind": "regression", "center": 5.0, "spread": 2.0})
    with pytest.raises(SettingsError, match="a regression task has no risks"):
        recalibrations_of(regression, done.history)
    own = small_study(personalisation={"parts": ["head"]})
    with pytest.raises(SettingsError, match="to each site, so no one recalibration fits"):
        recalibrations_of(own, done.history)
