"""A site puts a model's risks right by its own patients who did not train; nothing leaves."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from consilium.client.bedside.prediction import predict_patients
from consilium.client.bedside.recalibration import fit_at_site, recalibrate_at_site, rows_of
from consilium.client.cli import app
from consilium.client.records.cohort import read_cohort
from consilium.client.records.features import to_grid
from consilium.client.records.windows import read_windows
from consilium.shared.crypto.keys import IdentityKey
from consilium.shared.errors import AuthenticationError, DataError, SettingsError
from consilium.shared.export.signed_model import SignedModel, load_signed_model, write_signed_model
from consilium.shared.figures.recalibration import NEUTRAL, Recalibration
from consilium.shared.study.definition import load_study, with_changes
from consilium.simulations.cohorts.hospitals import FLAWED_HOSPITAL, synthetic_hospital
from tests.client.site_folders import COORDINATOR, enrolled
from tests.signed_models import KEY, some_manifest, some_trained
from tests.study_text import small_study

ROOT = Path(__file__).parents[3]
DATA = ROOT.parent / "shared" / "data" / "heart_disease"
OWN = IdentityKey.from_seed(b"o" * 32)
SPLIT = b"s" * 32
STUDY = with_changes(
    load_study(ROOT / "studies" / "demo.toml"),
    model={"cell": "gru", "hidden": 4},
    evaluation={"validation_fraction": 0.4},
)


@pytest.fixture(scope="module")
def signed() -> SignedModel:
    """A model whose risks are all far too high, as is plain from any cohort."""
    trained = some_trained(STUDY)
    with np.errstate(all="ignore"):
        trained.model.head.bias.data.fill_(1.0)
    return SignedModel(manifest=some_manifest(trained), trained=trained)


def test_the_patients_who_trained_have_no_say_and_the_manifest_says_who_had(
    signed: SignedModel, tmp_path: Path
) -> None:
    source = synthetic_hospital(FLAWED_HOSPITAL, STUDY)
    manifest, (fit,) = recalibrate_at_site(signed, source, tmp_path / "m", key=OWN, split_key=SPLIT)
    held_out = read_cohort(source, STUDY, site="a", split_key=SPLIT).validation
    assert held_out is not None
    assert fit.patients == held_out.patients
    assert (fit_at_site(signed.trained, held_out)[0]) == fit
    assert fit.before is not None
    assert fit.after is not None
    assert fit.before.high < 0.5
    assert fit.after.low < 1 < fit.after.high
    told = manifest.recalibration
    assert told is not None
    assert told.on == f"{held_out.patients} patients of this site who did not train"
    assert (told.slopes[0], told.intercepts[0]) == (
        fit.recalibration.slope,
        fit.recalibration.intercept,
    )
    assert manifest.recalibrated.startswith(f"Recalibrated on {told.on}; In-hospital_death: log")
    assert (tmp_path / "m").stat().st_mode & 0o777 == 0o700


def test_what_predicts_with_it_predicts_recalibrated_risks(
    signed: SignedModel, tmp_path: Path
) -> None:
    source = synthetic_hospital(1, STUDY)
    _, (fit,) = recalibrate_at_site(signed, source, tmp_path / "m", key=OWN, split_key=None)
    found = load_signed_model(tmp_path / "m", OWN.public)
    before, after = (
        np.array([p.scores[0] for p in predict_patients(one, source.read_patients(STUDY))])
        for one in (signed.trained, found.trained)
    )
    assert after == pytest.approx(fit.recalibration.apply(before), abs=1e-6)
    grid = to_grid(read_windows(source, STUDY), STUDY)
    (rows,) = rows_of(found.trained, grid)
    ratio = rows.ratio(rows.risks)
    assert ratio is not None
    assert ratio.value == pytest.approx(1, abs=1e-4)
    assert found.manifest.validation is not None
    assert sum(band.patients for band in found.manifest.validation.bands[0]) == grid.patients
    with pytest.raises(AuthenticationError):
        load_signed_model(tmp_path / "m", KEY.public)


def test_few_patients_or_none_apart_justify_nothing(signed: SignedModel, tmp_path: Path) -> None:
    few = synthetic_hospital(0, with_changes(STUDY, study={"seed": 5}))
    few._share = 0.05
    with pytest.raises(DataError, match="are on the rarer side of the outcome; to recalibrate"):
        recalibrate_at_site(signed, few, tmp_path / "m", key=OWN, split_key=None)
    unkept = with_changes(STUDY, evaluation={"validation_fraction": 0.0})
    trained = some_trained(unkept)
    other = SignedModel(manifest=some_manifest(trained), trained=trained)
    source = synthetic_hospital(0, unkept)
    with pytest.raises(DataError, match="kept no patients out of training"):
        recalibrate_at_site(other, source, tmp_path / "m", key=OWN, split_key=SPLIT)
    numbers = some_trained(small_study(task={"kind": "regression", "center": 1.0}))
    regression = SignedModel(manifest=some_manifest(numbers), trained=numbers)
    with pytest.raises(SettingsError, match="a regression task has no risks"):
        recalibrate_at_site(regression, source, tmp_path / "m", key=OWN, split_key=None)
    assert not (tmp_path / "m").exists()


def test_a_fit_is_judged_on_patients_it_did_not_see(signed: SignedModel) -> None:
    grid = to_grid(read_windows(synthetic_hospital(2, STUDY), STUDY), STUDY)
    (fit,) = fit_at_site(signed.trained, grid)
    (rows,) = rows_of(signed.trained, grid)
    ratio = rows.ratio(fit.recalibration.apply(rows.risks))
    assert fit.recalibration != NEUTRAL
    assert ratio is not None
    assert fit.after is not None
    assert ratio.value == pytest.approx(1, abs=1e-6)
    assert fit.after.value != pytest.approx(1, abs=1e-6)
    assert replace(fit, recalibration=Recalibration(slope=1, intercept=0)).recalibration == NEUTRAL


@pytest.mark.skipif(not DATA.is_dir(), reason="the heart disease records are not here")
def test_a_site_recalibrates_uses_the_model_as_its_own_and_refuses_it_changed(
    tmp_path: Path,
) -> None:
    study = with_changes(load_study(ROOT / "studies" / "heart-disease.toml"))
    site = enrolled(tmp_path / "site").path
    write_signed_model(
        tmp_path / "m", some_trained(study), COORDINATOR, simulated=False, rounds=1, epsilon=None
    )

    def run(command: str, *arguments: str | Path) -> tuple[int, str]:
        result = CliRunner().invoke(app, [command, *map(str, arguments), "--folder", str(site)])
        return result.exit_code, result.output + str(result.exception or "")

    records = ("--data", DATA / "processed.hungarian.data")
    code, told = run("recalibrate", tmp_path / "m", "--out", tmp_path / "own", *records)
    assert (code, "kept no patients out of training" in told) == (1, True)
    code, told = run(
        "recalibrate", tmp_path / "m", "--out", tmp_path / "own", *records, "--untrained"
    )
    assert code == 0, told
    assert "outcomes for each one predicted after" in told
    code, told = run("model", tmp_path / "own")
    assert code == 0, told
    assert "Recalibrated on 294 patients of this site who did not train" in told
    out = tmp_path / "scores.csv"
    code, told = run("predict", tmp_path / "own", "--out", out, *records)
    assert code == 0, told
    with (tmp_path / "own" / "model.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        last = file.read(1)
        file.seek(-1, 2)
        file.write(bytes([last[0] ^ 1]))
    code, told = run("predict", tmp_path / "own", "--out", out, *records)
    assert (code, "the signed manifest says" in told) == (1, True)
