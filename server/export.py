"""Make a finished study's model ready to leave: weights, manifest, signature.

The figures in the manifest are those of the last evaluation round, from secure sums over the sites'
validation patients; a study without such patients exports a model that says nothing of itself.
"""

import importlib.util
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from server.checkpoints import Checkpoint
from server.evaluation import tables_from_json
from shared.errors import SettingsError
from shared.keys import IdentityKey
from shared.manifest import Manifest, Validation
from shared.model import build_model
from shared.normalisation import Normalisation
from shared.operating_range import bands, thresholds
from shared.round_contents import Purpose, metrics_noise
from shared.signed_model import Trained, write_signed_model
from shared.study import Study
from shared.variables import feature_names
from shared.weights import load_vector

LARGEST_DIFFERENCE = 1e-5  # of a risk; of a quantity in its spreads


def export_model(
    study: Study,
    checkpoint: Checkpoint,
    key: IdentityKey,
    folder: Path,
    *,
    simulated: bool,
    onnx: bool = False,
) -> Manifest:
    """Write the model a run ended with into a new folder, signed; with ``onnx`` in that form too.

    Raises:
        SettingsError: the run has no model yet, or the folder cannot be written.
    """
    run = checkpoint.state
    if not run.finished:
        raise SettingsError(
            f"study {study.name}: {run.trained} of {study.rounds} rounds are done; "
            "export it when it is finished"
        )
    model = build_model(study, len(feature_names(study)), seed=study.seed)
    load_vector(model, run.server.model_weights)
    trained = Trained(
        study=study,
        model=model.eval(),
        normalisation=Normalisation.from_bytes(run.normalisation, study),
        validation=validation_of(study, checkpoint.history),
    )
    epsilon = checkpoint.history[-1]["epsilon"] if checkpoint.history else None
    return write_signed_model(
        folder,
        trained,
        key,
        simulated=simulated,
        rounds=run.trained,
        epsilon=epsilon,
        more=onnx_part(trained) if onnx else None,
    )


def onnx_part(trained: Trained) -> dict[str, bytes]:
    """Return the model as ``model.onnx``, after it has scored as PyTorch does.

    Raises:
        SettingsError: the libraries are not installed, or the scores differ.
    """
    missing = [name for name in ("onnx", "onnxruntime") if importlib.util.find_spec(name) is None]
    if missing:
        raise SettingsError(
            f"--onnx needs the library {missing[0]!r}, which is not installed; install it with: "
            "pip install 'consilium-fl[onnx]'"
        )
    if trained.study.personalisation.weights:
        raise SettingsError(
            f"study {trained.study.name} leaves {trained.study.personalisation.described} to each "
            "site, so the model exported here is not whole and has no scores of its own; export "
            "it without --onnx"
        )
    if trained.study.model.cell == "gru-d":
        raise SettingsError(
            f"study {trained.study.name}: ONNX has no operator for cell 'gru-d'; "
            "export it without --onnx"
        )
    from shared.onnx_check import largest_difference
    from shared.onnx_graph import to_onnx

    study, names = trained.study, feature_names(trained.study)
    properties = {"study_digest": study.digest.hex(), "features": json.dumps(names)}
    content = to_onnx(trained.model, properties)
    difference = largest_difference(content, trained.model, study.data.steps)
    if not difference <= LARGEST_DIFFERENCE:
        raise SettingsError(
            f"study {study.name}: its scores by ONNX differ from PyTorch's by {difference:.1e}, "
            f"more than {LARGEST_DIFFERENCE:g}; export it without --onnx"
        )
    return {"model.onnx": content}


def validation_of(study: Study, history: tuple[Mapping[str, Any], ...]) -> Validation | None:
    """Return what the last evaluation of the finished model says; None if there was none."""
    final = [r for r in history if r["purpose"] == Purpose.EVALUATION and r["void"] is None]
    if not final or final[-1]["validation"] is None:
        return None
    told = final[-1]["validation"]
    noise = metrics_noise(study) * math.sqrt(len(final[-1]["sites"]))
    tables, declared = tables_from_json(told), study.evaluation.thresholds
    return Validation(
        of=f"validation patients of {len(final[-1]['sites'])} sites, from secure sums",
        patients=told["patients"],
        bands=tuple(bands(*table, noise=noise) for table in tables),
        thresholds=tuple(thresholds(*table, declared, noise=noise) for table in tables),
        errors=tuple(told.get("rmse", ())),
    )
