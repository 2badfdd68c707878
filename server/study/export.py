"""Export of a finished study's model: weights, manifest, signature.

The figures in the manifest are those of the last evaluation round, from secure sums over the sites'
validation patients; a study without such patients exports a model without figures. The same counts
can recalibrate the model; nothing more is asked of the sites for it.
"""

import importlib.util
import json
import math
from collections.abc import Mapping
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np

from consilium.server.figures.evaluation import tables_from_json
from consilium.server.study.checkpoints import Checkpoint
from consilium.shared.crypto.keys import IdentityKey
from consilium.shared.errors import SettingsError
from consilium.shared.export.manifest import ManifestRoster, ModelManifest, Recalibrated, Validation
from consilium.shared.export.signed_model import Trained, write_signed_model
from consilium.shared.figures.operating_range import bands, survival_bands, thresholds
from consilium.shared.figures.recalibration import (
    NEUTRAL,
    Recalibration,
    recalibrate_counts,
    with_recalibration,
)
from consilium.shared.model.normalisation import Normalisation
from consilium.shared.model.study_model import study_model
from consilium.shared.rounds.contents import Purpose, metrics_noise
from consilium.shared.rounds.patient_groups import WITH_RISKS
from consilium.shared.study.definition import Study
from consilium.shared.study.input_names import feature_names

LARGEST_DIFFERENCE = 1e-5  # between two risks; between two quantities, in units of their spread


def export_model(
    study: Study,
    checkpoint: Checkpoint,
    key: IdentityKey,
    folder: Path,
    *,
    simulated: bool,
    onnx: bool = False,
    recalibrate: bool = False,
    rosters: tuple[ManifestRoster, ...] = (),
) -> ModelManifest:
    """Write the model a run ended with into a new folder, signed.

    Args:
        study: what was run.
        checkpoint: the run's last one.
        key: signs the model.
        folder: must not exist.
        simulated: whether the run was a simulation.
        onnx: also write the model in ONNX form.
        recalibrate: correct the risks as far as the last evaluation's counts justify it.
        rosters: that the study had after its first.

    Raises:
        SettingsError: the run has no model yet, it cannot be recalibrated, or the folder cannot be
            written.
    """
    run = checkpoint.state
    if not run.finished:
        raise SettingsError(
            f"study {study.name}: {run.trained} of {study.rounds} rounds are done; "
            "export it when it is finished"
        )
    model = study_model(study, run.server.model_weights)
    found = recalibrations_of(study, checkpoint.history) if recalibrate else ()
    changed = any(one != NEUTRAL for one in found)
    trained = Trained(
        study=study,
        model=(with_recalibration(model, found) if changed else model).eval(),
        normalisation=Normalisation.from_bytes(run.normalisation, study),
        validation=validation_of(study, checkpoint.history, found),
        recalibration=_recalibrated(checkpoint.history, found) if changed else None,
        rosters=rosters,
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
    """Return ``model.onnx`` by name, after checking that it scores as PyTorch does.

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
    if obstacle := trained.model.onnx_obstacle:
        raise SettingsError(
            f"study {trained.study.name}: ONNX has no operator for {obstacle}; "
            "export it without --onnx"
        )
    from consilium.shared.export.onnx_check import largest_difference
    from consilium.shared.export.onnx_graph import to_onnx

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


def recalibrations_of(
    study: Study, history: tuple[Mapping[str, Any], ...]
) -> tuple[Recalibration, ...]:
    """Return the recalibration of each output that the last evaluation justifies.

    Raises:
        SettingsError: there was no evaluation, or the task has no risks to recalibrate.
    """
    if study.task.kind not in WITH_RISKS:
        raise SettingsError(
            f"study {study.name}: a {study.task.kind} task has no risks of one outcome to "
            "recalibrate; export it without --recalibrate"
        )
    if study.personalisation.active:
        raise SettingsError(
            f"study {study.name} leaves {study.personalisation.described} to each site, so no one "
            "recalibration fits them all; export it without --recalibrate, and let each site run "
            "'consilium-site recalibrate'"
        )
    last = _last_evaluation(history)
    if last is None:
        raise SettingsError(
            f"study {study.name}: no evaluation of the finished model is there to recalibrate by; "
            "run it with [evaluation] validation_fraction above 0, or export it without "
            "--recalibrate"
        )
    tables, noise = tables_from_json(last["validation"]), _noise(study, last)
    return tuple(recalibrate_counts(*table, noise=noise) for table in tables)


def validation_of(
    study: Study,
    history: tuple[Mapping[str, Any], ...],
    recalibrations: tuple[Recalibration, ...] = (),
) -> Validation | None:
    """Return the manifest's figures, from the finished model's last evaluation; None without one.

    Args:
        study: what was run.
        history: the records of its rounds.
        recalibrations: of each output, if the model is recalibrated; figures are then those of the
            changed risks.
    """
    last = _last_evaluation(history)
    if last is None:
        return None
    figures, noise = last["validation"], _noise(study, last)
    if study.task.kind == "survival":
        return _validation_of_survival(study, last)
    declared = study.evaluation.thresholds
    tables = [
        (counts_2B, one.apply(edges_L).astype("float32"))
        for one, (counts_2B, edges_L) in zip(
            recalibrations or repeat(NEUTRAL), tables_from_json(figures), strict=False
        )
    ]
    return Validation(
        of=_whose(last),
        patients=figures["patients"],
        bands=tuple(bands(*table, noise=noise) for table in tables),
        thresholds=tuple(thresholds(*table, declared, noise=noise) for table in tables),
        errors=tuple(figures.get("rmse", ())),
    )


def _validation_of_survival(study: Study, last: Mapping[str, Any]) -> Validation:
    """Return what became, by the horizon, of validation patients in bands of the risk by then."""
    tables = tables_from_json(last["validation"])
    counts_K2B, edges_L = np.stack([counts_2B for counts_2B, _ in tables]), tables[0][1]
    found = survival_bands(counts_K2B, edges_L, noise=_noise(study, last))
    return Validation(
        of=_whose(last),
        patients=last["validation"]["patients"],
        bands=(*((),) * (study.task.outputs - 1), found),
        thresholds=(),
        errors=(),
    )


def _recalibrated(
    history: tuple[Mapping[str, Any], ...],
    recalibrations: tuple[Recalibration, ...],
) -> Recalibrated:
    last = _last_evaluation(history)
    assert last is not None  # noqa: S101 - recalibrations_of refused that; this is for mypy
    return Recalibrated(
        on=_whose(last),
        slopes=tuple(one.slope for one in recalibrations),
        intercepts=tuple(one.intercept for one in recalibrations),
    )


def _last_evaluation(history: tuple[Mapping[str, Any], ...]) -> Mapping[str, Any] | None:
    final = [r for r in history if r["purpose"] == Purpose.EVALUATION and r["void"] is None]
    return final[-1] if final and final[-1]["validation"] is not None else None


def _whose(last: Mapping[str, Any]) -> str:
    return f"validation patients of {len(last['sites'])} sites, from secure sums"


def _noise(study: Study, last: Mapping[str, Any]) -> float:
    """Standard deviation of the privacy noise on each sum."""
    return metrics_noise(study, final=True) * math.sqrt(len(last["sites"]))
