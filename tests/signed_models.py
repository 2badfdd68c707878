"""Exported models of small studies, untrained unless a test trains them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from consilium.shared.crypto.keys import IdentityKey
from consilium.shared.export.manifest import ModelManifest, Validation
from consilium.shared.export.signed_model import (
    SignedModel,
    Trained,
    manifest_of,
    write_signed_model,
)
from consilium.shared.figures.operating_range import bands, thresholds
from consilium.shared.figures.score_counts import count_scores, first_edges
from consilium.shared.model.network import build_model
from consilium.shared.model.normalisation import Normalisation
from consilium.shared.study.definition import Study
from consilium.shared.study.input_names import feature_names

EDGES = first_edges(200)
KEY = IdentityKey.from_seed(b"k" * 32)


def some_normalisation(study: Study, seed: int = 0) -> Normalisation:
    stream = np.random.default_rng(seed)
    size = len(study.variables)
    return Normalisation(
        mean_V=stream.uniform(-0.5, 0.5, size), deviation_V=stream.uniform(0.5, 2, size)
    )


def some_trained(study: Study, seed: int = 0, **changes: Any) -> Trained:
    """Weights as drawn, the zero ones too, so that every path matters."""
    model = build_model(study, len(feature_names(study)), seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    trained = Trained(
        study=study,
        model=model.eval(),
        normalisation=some_normalisation(study, seed),
        validation=some_validation(study),
    )
    return replace(trained, **changes)


def some_counts(patients: int = 1000, bins: int = 200) -> np.ndarray:
    stream = np.random.default_rng(1)
    risks = 1 / (1 + np.exp(-stream.normal(-1.5, 1.5, patients)))
    outcomes = stream.random(patients) < risks
    return count_scores(risks, outcomes, np.ones(patients), first_edges(bins))


def some_validation(study: Study) -> Validation:
    if study.task.kind == "regression":
        return Validation(of="nobody", patients=1000, errors=(0.5,) * study.task.outputs)
    tables = [some_counts()] * study.task.outputs
    return Validation(
        of="nobody",
        patients=1000,
        bands=tuple(bands(table, EDGES) for table in tables),
        thresholds=tuple(thresholds(table, EDGES) for table in tables),
    )


def written(folder: Path, study: Study, seed: int = 0) -> Trained:
    """Write such a model into the folder, signed by ``KEY``."""
    trained = some_trained(study, seed)
    write_signed_model(folder, trained, KEY, simulated=True, rounds=3, epsilon=None)
    return trained


def some_manifest(trained: Trained) -> ModelManifest:
    return manifest_of(trained, KEY, {}, simulated=True, rounds=3, epsilon=None)


def some_signed(study: Study, seed: int = 0, **changes: Any) -> SignedModel:
    """A model as it is after loading; nothing is written."""
    trained = some_trained(study, seed, **changes)
    return SignedModel(manifest=some_manifest(trained), trained=trained)
