"""Reading the file ``model.safetensors`` of a finished run."""

from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from consilium.shared.errors import ConsiliumError, SettingsError
from consilium.shared.export.signed_model import Trained
from consilium.shared.model.normalisation import Normalisation
from consilium.shared.model.study_model import study_model
from consilium.shared.study.definition import Study, parse_canonical

MODEL = "model.safetensors"


def read_study(folder: Path) -> Study:
    """Return the study of a finished run, from its model file.

    Raises:
        SettingsError: the file is not there, or cannot be read.
    """
    return _read(folder)[0]


def read_trained(folder: Path) -> Trained:
    """Return the global model of a finished run, ready to be used.

    Raises:
        SettingsError: the file is not there, or cannot be read.
    """
    study, normalisation, tensors = _read(folder, weights=True)
    model = study_model(study)
    try:
        model.load_state_dict(tensors)
        decoded = Normalisation.from_bytes(bytes.fromhex(normalisation), study)
    except (RuntimeError, ValueError, ConsiliumError) as error:
        raise SettingsError(
            f"{folder / MODEL}: does not hold a model of its study; run the study again"
        ) from error
    return Trained(study=study, model=model.eval(), normalisation=decoded)


def _read(folder: Path, *, weights: bool = False) -> tuple[Study, str, dict[str, Any]]:
    """Return the study, the normalisation in hexadecimal, and the weights if asked for."""
    file = folder / MODEL
    try:
        with safe_open(file, framework="pt" if weights else "np") as opened:
            stored = opened.metadata()
            study = parse_canonical(stored["study"].encode())
            names = opened.keys() if weights else ()
            return study, stored["normalisation"], {name: opened.get_tensor(name) for name in names}
    except (OSError, SafetensorError, KeyError, TypeError) as error:
        raise SettingsError(
            f"{file}: cannot be read; finish the run with 'consilium-simulate run' first"
        ) from error
