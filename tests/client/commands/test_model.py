"""What a site says of an exported model, and under whose signature it takes one."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from consilium.client.cli import app
from consilium.client.commands.model import open_own_model
from consilium.client.hospital.folder import SiteFolder
from consilium.client.hospital.personal_store import PersonalStore
from consilium.shared.crypto.keys import IdentityKey
from consilium.shared.errors import SettingsError
from consilium.shared.export.manifest import Recalibrated
from consilium.shared.export.signed_model import write_signed_model
from consilium.shared.model.own_weights import shared_weights
from consilium.shared.model.weight_vector import to_vector
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


def test_whoever_uses_a_simulated_model_is_told_that_it_is_one(
    site: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for simulated in (False, True):
        exported = export(tmp_path / f"{simulated}", KEY, simulated=simulated)
        open_own_model(exported, site, KEY.public.hex())
        said = capsys.readouterr()
        assert ("not for use on patients" in said.err) is simulated
        assert not said.out


@pytest.mark.parametrize("signer", ["xyz", "ab" * 31, "ab" * 33])
def test_what_is_no_identity_is_refused_in_one_sentence(signer: str, tmp_path: Path) -> None:
    code, told = model(export(tmp_path / "m", KEY), "--signer", signer)
    assert code == 1
    assert "is not 64 hexadecimal digits" in told


def test_a_site_uses_the_model_with_its_own_part_and_refuses_one_without(
    site: Path, tmp_path: Path
) -> None:
    study = small_study(personalisation={"parts": ["head", "inputs"]})
    trained = some_trained(study)
    exported = tmp_path / "m"
    write_signed_model(exported, trained, COORDINATOR, simulated=False, rounds=7, epsilon=3.5)
    assert model(exported, "--folder", site)[0] == 0  # it can be looked at without
    with pytest.raises(SettingsError, match=r"leaves the model's head .* has none: it did not"):
        open_own_model(exported, site, "")
    shared_D = shared_weights(study, to_vector(trained.model).size)
    own = np.arange((~shared_D).sum(), dtype=np.float32)
    kept = {"own_weights": own, "statistics": np.array([9.0, 3.0, 4.0])}
    store = PersonalStore(site / "personal")
    store.save(study.digest, bytes(32), kept)
    found = open_own_model(exported, site, "").trained
    assert np.array_equal(to_vector(found.model)[~shared_D], own)
    assert np.array_equal(to_vector(found.model)[shared_D], to_vector(trained.model)[shared_D])
    assert found.normalisation != trained.normalisation
    assert 0 < found.normalisation.mean_V[0] < 3.0 / 9.0
    store.save(study.digest, bytes(32), {"own_weights": own[1:]})
    with pytest.raises(SettingsError, match="finite ones are needed"):
        open_own_model(exported, site, "")
    store.save(study.digest, bytes(32), kept)
    told = Recalibrated(on="own", slopes=(1.0,), intercepts=(0.5,), made_from="ab" * 32)
    made_here, identity = replace(trained, recalibration=told), SiteFolder(path=site).identity()
    write_signed_model(
        tmp_path / "own", made_here, identity, simulated=False, rounds=7, epsilon=3.5
    )
    used = open_own_model(tmp_path / "own", site, "").trained  # its own part is in it already
    assert np.array_equal(to_vector(used.model), to_vector(trained.model))
