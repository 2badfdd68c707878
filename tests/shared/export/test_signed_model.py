"""A signed model: loaded as it was, refused when a byte of it is another."""

import json
import os
from pathlib import Path

import pytest
import torch

from consilium.shared.crypto.keys import IdentityKey
from consilium.shared.crypto.transcript import sha256
from consilium.shared.errors import AuthenticationError, ConsiliumError, MessageError, SettingsError
from consilium.shared.export.manifest import manifest_statement
from consilium.shared.export.signed_model import (
    MANIFEST,
    SIGNATURE,
    load_signed_model,
    write_signed_model,
)
from tests.signed_models import KEY, some_trained, written
from tests.study_text import small_study

STUDY = small_study(model={"cell": "gru", "hidden": 4, "pooling": "attention"})
SAMPLES = 60


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("signed") / "model"
    written(folder, STUDY)
    return folder


def test_a_signed_model_is_loaded_as_it_was_written(tmp_path: Path) -> None:
    trained = written(tmp_path / "model", STUDY)
    found = load_signed_model(tmp_path / "model", KEY.public)
    assert found.trained.study == STUDY
    assert found.trained.normalisation == trained.normalisation
    assert found.trained.validation == trained.validation
    for name, tensor in trained.model.state_dict().items():
        assert torch.equal(tensor, found.trained.model.state_dict()[name])
    assert {path.name for path in (tmp_path / "model").iterdir()} == {
        MANIFEST, SIGNATURE, "model.safetensors", "study.json"
    }  # fmt: skip
    manifest = json.loads((tmp_path / "model" / MANIFEST).read_bytes())
    assert manifest["study_digest"] == STUDY.digest.hex() == manifest["parts"]["study.json"]
    assert manifest["variables"][0]["unit"] == "1/min"
    assert manifest["validation"]["thresholds"][0][0]["name"] == "sensitivity 0.9"


@pytest.mark.parametrize("name", [MANIFEST, SIGNATURE, "model.safetensors", "study.json"])
def test_one_flipped_bit_anywhere_is_refused_with_what_does_not_match(
    exported: Path, name: str
) -> None:
    """Every byte of the signature, and first, last and evenly many of the others."""
    file = exported / name
    whole = file.read_bytes()
    places = range(0, len(whole), max(1, len(whole) // SAMPLES))
    try:
        for place in {*places, len(whole) - 1}:
            changed = bytearray(whole)
            changed[place] ^= 1 << (place % 8)
            file.write_bytes(changed)
            with pytest.raises(AuthenticationError) as refusal:
                load_signed_model(exported, KEY.public)
            told = str(refusal.value)
            assert ("SHA-256" in told) == (name in ("model.safetensors", "study.json"))
            assert name in told
        for other in (whole[:-1], whole + b"\n", b""):
            file.write_bytes(other)
            with pytest.raises(AuthenticationError):
                load_signed_model(exported, KEY.public)
    finally:
        file.write_bytes(whole)
    load_signed_model(exported, KEY.public)


def test_another_signer_a_missing_part_and_a_stranger_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    written(folder, STUDY)
    with pytest.raises(AuthenticationError, match="another identity signed it"):
        load_signed_model(folder, IdentityKey.generate().public)
    with pytest.raises(SettingsError, match="exists already; name another"):
        written(folder, STUDY)
    (folder / "study.json").unlink()
    with pytest.raises(SettingsError, match=r"study\.json: cannot be read"):
        load_signed_model(folder, KEY.public)
    with pytest.raises(SettingsError, match="name the folder of an exported model"):
        load_signed_model(tmp_path / "nothing", KEY.public)
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match="cannot be written"):
        written(tmp_path / "file" / "model", STUDY)


def test_a_model_beside_the_parts_and_what_is_no_file_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    written(folder, STUDY)
    (folder / "scores.csv").write_text("a hospital's own file does no harm")
    load_signed_model(folder, KEY.public)
    (folder / "model.onnx").write_bytes(b"whoever wrote this signed nothing")
    with pytest.raises(AuthenticationError, match=r"model\.onnx: is not among the parts"):
        load_signed_model(folder, KEY.public)
    (folder / "model.onnx").unlink()
    (folder / "study.json").unlink()
    os.mkfifo(folder / "study.json")
    with pytest.raises(MessageError, match=r"study\.json: is no file"):
        load_signed_model(folder, KEY.public)


def resigned(folder: Path, change: dict[str, object]) -> None:
    """What a coordinator could sign, though it fits nothing."""
    manifest = json.loads((folder / MANIFEST).read_bytes()) | change
    content = json.dumps(manifest).encode()
    (folder / MANIFEST).write_bytes(content)
    (folder / SIGNATURE).write_bytes(KEY.sign(manifest_statement(content)))


def test_what_is_signed_but_fits_nothing_is_refused_too(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    written(folder, STUDY)
    manifest = json.loads((folder / MANIFEST).read_bytes())
    parts, (variable,) = manifest["parts"], manifest["variables"]
    other = some_trained(small_study(model={"cell": "lstm", "hidden": 3}))
    write_signed_model(tmp_path / "other", other, KEY, simulated=True, rounds=1, epsilon=1.0)
    strange = {
        "../x": ({"parts": parts | {"../x": "0" * 64}}, None),
        "names no study.json": ({"parts": {"model.safetensors": "0" * 64}}, None),
        "whose digest": ({"study_digest": "0" * 64, "parts": parts}, None),
        "variables are not those": ({"variables": [variable | {"unit": "/h"}]}, None),
        "of this study's 1 variables": ({"variables": []}, None),
        "format": ({"format": 2}, None),
        "is not a safetensors file": (None, b"x" * 100),
        "does not have the tensors": (None, (tmp_path / "other/model.safetensors").read_bytes()),
    }
    before = {path: path.read_bytes() for path in folder.iterdir()}
    for told, (change, weights) in strange.items():
        if weights is not None:
            (folder / "model.safetensors").write_bytes(weights)
            change = {"parts": parts | {"model.safetensors": sha256(weights).hex()}}
        resigned(folder, change)
        with pytest.raises(MessageError, match=told):
            load_signed_model(folder, KEY.public)
        for path, content in before.items():
            path.write_bytes(content)


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    trained = some_trained(STUDY)
    with torch.no_grad():
        trained.model.head.weight[0, 0] = torch.nan
    write_signed_model(tmp_path / "model", trained, KEY, simulated=True, rounds=1, epsilon=None)
    with pytest.raises(ConsiliumError, match="not finite"):
        load_signed_model(tmp_path / "model", KEY.public)
