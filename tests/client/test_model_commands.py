"""What a site says of an exported model, and under whose signature it takes one."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from client.cli import app
from shared.keys import IdentityKey
from shared.signed_model import write_signed_model
from tests.client.site_folders import COORDINATOR, enrolled
from tests.signed_models import KEY, some_trained
from tests.study_text import small_study

STUDY = small_study(model={"cell": "gru", "hidden": 4})


def model(*arguments: str | Path) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["model", *map(str, arguments)])
    return result.exit_code, result.output + str(result.exception or "")


@pytest.fixture
def site(tmp_path: Path) -> Path:
    return enrolled(tmp_path / "site").path


def export(folder: Path, key: IdentityKey, *, simulated: bool = False) -> Path:
    write_signed_model(folder, some_trained(STUDY), key, simulated=simulated, rounds=7, epsilon=3.5)
    return folder


def test_a_site_takes_the_model_its_own_coordinator_signed_and_no_other(
    site: Path, tmp_path: Path
) -> None:
    code, told = model(export(tmp_path / "ours", COORDINATOR), "--folder", site)
    assert code == 0, told
    assert "7 rounds; epsilon 3.50 at delta 1e-05" in told
    assert "sensitivity 0.9" in told
    assert "hr        1/min" in told
    assert "SIMULATION" not in told
    code, told = model(export(tmp_path / "theirs", KEY), "--folder", site)
    assert code == 1
    assert "another identity signed it" in told


def test_a_simulated_model_is_named_so_and_needs_its_signer(site: Path, tmp_path: Path) -> None:
    exported = export(tmp_path / "m", KEY, simulated=True)
    code, told = model(exported, "--folder", site)
    assert code == 1
    code, told = model(exported, "--signer", KEY.public.hex())
    assert code == 0, told
    assert "SIMULATION" in told
    code, told = model(exported, "--signer", KEY.public.hex(), "--json")
    assert json.loads(told)["simulated"] is True


@pytest.mark.parametrize("signer", ["xyz", "ab" * 31, "ab" * 33])
def test_what_is_no_identity_is_refused_in_one_sentence(signer: str, tmp_path: Path) -> None:
    code, told = model(export(tmp_path / "m", KEY), "--signer", signer)
    assert code == 1
    assert "is not 64 hexadecimal digits" in told
