"""Export of a simulated run's model, as by a coordinator, signed by the run's own key."""

from pathlib import Path

from consilium.server.study.checkpoints import FILE_NAME, load_checkpoint
from consilium.server.study.export import export_model
from consilium.shared.crypto.keys import IdentityKey
from consilium.shared.errors import SettingsError
from consilium.shared.export.manifest import ModelManifest
from consilium.shared.files.atomic_file import write_atomically
from consilium.shared.files.permissions import PRIVATE_FILE
from consilium.simulations.runs.model_file import read_study

KEY_FILE = "export.pem"


def export_run(
    run: Path, out: Path, *, onnx: bool = False, recalibrate: bool = False
) -> ModelManifest:
    """Write the model of a finished run into a new folder.

    Args:
        run: the folder that ``consilium-simulate run`` or ``demo`` wrote.
        out: the new folder.
        onnx: also write the model in ONNX form.
        recalibrate: correct its risks by the last evaluation's counts.

    Raises:
        SettingsError: the folder is not a run's, the run is not finished, or ``out`` exists.
    """
    checkpoint = load_checkpoint(run)
    if checkpoint is None:
        raise SettingsError(
            f"{run}: holds no {FILE_NAME}; name the folder of 'consilium-simulate run'"
        )
    key_file = run / KEY_FILE
    if not key_file.exists():
        write_atomically(key_file, IdentityKey.generate().to_pem(), mode=PRIVATE_FILE)
    key = IdentityKey.from_pem(key_file.read_bytes())
    return export_model(
        read_study(run), checkpoint, key, out, simulated=True, onnx=onnx, recalibrate=recalibrate
    )
