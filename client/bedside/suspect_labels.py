"""Stays whose label a finished model doubts most: where the hospital may look for wrong labels.

Doubt is the probability that the model gives to anything but the label: ``|y - p|`` of a binary
label, ``1 - p_y`` of a class, the largest over several labels, the mean over the steps that have a
label; for a quantity, the distance between label and prediction in units of the root of its mean
square over all stays. With wrong labels these are the stays to look at first (Northcutt, Jiang and
Chuang, "Confident learning", J Artif Intell Res 2021;70:1373-1411); a doubted label may be right.

The list is for the hospital alone. It is written for its account only, and nothing of it leaves.
"""

import csv
import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from heapq import nlargest
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from consilium.client.records.features import to_grid, to_tensors
from consilium.client.round.predictions import predict
from consilium.client.sources.common.source import Patient
from consilium.shared.errors import DataError
from consilium.shared.export.signed_model import Trained
from consilium.shared.files.atomic_file import write_private_output
from consilium.shared.study.definition import Study
from consilium.shared.study.survival import by_each_cut

PATIENTS_AT_ONCE = 512
COLUMNS = ("patient", "stay", "output", "label", "predicted", "doubt")


@dataclass(frozen=True, kw_only=True, repr=False)
class Suspect:
    """One stay: the output most in doubt, its label, what the model says, and the doubt."""

    patient_id: str
    stay_id: str
    output: str
    label: float
    predicted: float
    doubt: float

    def __repr__(self) -> str:
        return "Suspect(...)"


def suspects(
    trained: Trained, windows: Iterable[Patient], names: tuple[str, ...], *, most: int
) -> tuple[list[Suspect], int]:
    """Return the stays whose label is most in doubt, in that order, and how many have a label.

    Args:
        trained: the finished model.
        windows: the patients with their labels, as the study cuts them
            (:func:`consilium.client.records.windows.read_windows`).
        names: of the model's outputs.
        most: how many stays to return at most.

    Raises:
        DataError: no stay has a label, or the records cannot be read.
    """
    found = list(_doubts(trained, windows, names))
    if not found:
        raise DataError("no stay has a label that could be doubted; check [data] in site.toml")
    if trained.study.task.kind == "regression":
        scale = float(np.sqrt(np.mean([one.doubt**2 for one in found]))) or 1.0
        found = [_scaled(one, scale) for one in found]
    ranked = nlargest(most, found, key=lambda one: (one.doubt, one.patient_id, one.stay_id))
    return ranked, len(found)


def write_suspects(file: Path, found: Iterable[Suspect]) -> None:
    """Write one row per stay as CSV, mode 0600.

    Raises:
        SettingsError: the file cannot be written; an older file stays as it was.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for one in found:
        numbers = (f"{number:.6g}" for number in (one.label, one.predicted, one.doubt))
        writer.writerow([one.patient_id, one.stay_id, one.output, *numbers])
    write_private_output(file, text.getvalue().encode(), option="--out")


def _scaled(one: Suspect, scale: float) -> Suspect:
    return Suspect(
        patient_id=one.patient_id,
        stay_id=one.stay_id,
        output=one.output,
        label=one.label,
        predicted=one.predicted,
        doubt=one.doubt / scale,
    )


def _doubts(
    trained: Trained, windows: Iterable[Patient], names: tuple[str, ...]
) -> Iterator[Suspect]:
    """Yield every stay with a label once: of several windows, the one most in doubt."""
    study, stream = trained.study, iter(windows)
    while chunk := list(islice(stream, PATIENTS_AT_ONCE)):
        if not any(patient.stays for patient in chunk):
            continue
        inputs = to_tensors(to_grid(chunk, study), trained.normalisation, study)
        scores = predict(trained.model, inputs.x_NTF, inputs.mask_NT)
        whose = [(patient.patient_id, stay.stay_id) for patient in chunk for stay in patient.stays]
        worst: dict[tuple[str, str], Suspect] = {}
        for key, score, label in zip(whose, scores, inputs.y_N.numpy(), strict=True):
            doubt_K, label_K, said_K = _of_outputs(score, label, study)
            if np.isnan(doubt_K).all():
                continue
            at = int(np.nanargmax(doubt_K))
            one = Suspect(
                patient_id=key[0],
                stay_id=key[1],
                output=names[at] if at < len(names) else f"{at}",
                label=float(label_K[at]),
                predicted=float(said_K[at]),
                doubt=float(doubt_K[at]),
            )
            if key not in worst or one.doubt > worst[key].doubt:
                worst[key] = one
        yield from worst.values()


Array = NDArray[np.float64]


def _of_outputs(score: Array, label: NDArray[np.float32], study: Study) -> tuple[Array, ...]:
    """Return doubt, label and what the model says, each by output (K,); NaN without a label."""
    task = study.task
    if task.kind == "multiclass":
        label_T, score_TK = np.atleast_1d(label), np.atleast_2d(score)
        known_T = ~np.isnan(label_T)
        if not known_T.any():
            return np.array([np.nan]), np.array([np.nan]), np.array([np.nan])
        class_T = label_T[known_T].astype(np.int64)
        doubt_T = 1 - score_TK[known_T][np.arange(len(class_T)), class_T]
        said = score_TK[known_T].mean(axis=0).argmax()
        return np.array([doubt_T.mean()]), class_T[:1].astype(np.float64), np.array([float(said)])
    if task.kind == "survival":
        label = by_each_cut(label[None])[0]
    outputs = max(1, task.outputs)
    label_TK = label.astype(np.float64).reshape(-1, outputs)
    score_TK = score.reshape(-1, outputs)
    score_TK = np.where(np.isnan(label_TK), np.nan, score_TK)
    known_K = ~np.isnan(label_TK).all(axis=0)
    doubt_K, label_K, said_K = (np.full(outputs, np.nan) for _ in range(3))
    for to, of_TK in (
        (doubt_K, np.abs(label_TK - score_TK)),
        (label_K, label_TK),
        (said_K, score_TK),
    ):
        to[known_K] = np.nanmean(of_TK[:, known_K], axis=0)
    return doubt_K, label_K, said_K
