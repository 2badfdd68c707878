"""What a simulated run exports is its own model, with what its validation patients said."""

from pathlib import Path

import pytest
from safetensors.numpy import load_file
from typer.testing import CliRunner

from consilium.shared.export.signed_model import load_signed_model
from consilium.shared.study.definition import load_study, with_changes
from consilium.simulations.cli import app
from consilium.simulations.runs.simulate import simulate

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    demo = load_study(ROOT / "studies" / "demo.toml")
    study = with_changes(
        demo,
        study={"rounds": 2, "sites": list(demo.sites[:3]), "name": "short"},
        evaluation={"validation_fraction": 0.2},
    )
    out = tmp_path_factory.mktemp("run") / "out"
    simulate(study, None, out, workers=2, show=lambda _: None)
    return out


def export(*arguments: str | Path) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["export", *map(str, arguments)])
    return result.exit_code, result.output + str(result.exception or "")


@pytest.mark.slow
def test_a_run_is_exported_twice_under_one_key_with_its_weights_and_figures(
    run: Path, tmp_path: Path
) -> None:
    signers = set()
    for name in ("first", "second"):
        code, told = export(run, "--out", tmp_path / name)
        assert code == 0, told
        signers.add(told.split("signer")[1].split()[0])
    (signer,) = signers
    found = load_signed_model(tmp_path / "first", bytes.fromhex(signer))
    assert found.manifest.simulated
    assert found.manifest.epsilon == pytest.approx(8.0, abs=0.5)
    weights = load_file(run / "model.safetensors")
    for tensor, value in found.trained.model.state_dict().items():
        assert (weights[tensor] == value.numpy()).all()
    assert found.trained.validation is not None
    assert found.trained.validation.patients > 50
    code, told = export(run, "--out", tmp_path / "third", "--recalibrate")
    assert code == 0, told
    assert "ecalibrated" in told
    assert (run / "export.pem").stat().st_mode & 0o777 == 0o600


def test_a_folder_that_is_no_finished_run_is_refused(tmp_path: Path) -> None:
    code, told = export(tmp_path, "--out", tmp_path / "m")
    assert (code, "name the folder of 'consilium-simulate run'" in told) == (1, True)
