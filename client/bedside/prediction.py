"""Predictions for a site's own stays, from the same features as training; kept at the site."""

import csv
import io
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from consilium.client.explain.answers import answer
from consilium.client.records.features import label_shape, to_grid, to_tensors
from consilium.client.records.windows import cut_for_scoring
from consilium.client.round.predictions import predict
from consilium.client.sources.common.source import Patient, Stay
from consilium.shared.crypto.transcript import encode
from consilium.shared.export.signed_model import SignedModel, Trained
from consilium.shared.files.atomic_file import write_private_output
from consilium.shared.study.definition import Study

PATIENTS_AT_ONCE = 512
Format = Literal["csv", "jsonl"]
FIELDS = ("value", "observed", "low", "high")


@dataclass(frozen=True, kw_only=True, repr=False)
class StayScores:
    """One stay's scores (K,) at the end of its window, or (T, K) of its observed steps.

    ``inputs`` are the bytes of :func:`inputs_of`.
    """

    patient_id: str
    stay_id: str
    scores: NDArray[np.float64]
    inputs: bytes = b""

    def __repr__(self) -> str:
        return "StayScores(...)"


def predict_patients(trained: Trained, patients: Iterable[Patient]) -> Iterator[StayScores]:
    """Yield a prediction for every stay that has a window, in order; labels are ignored.

    Raises:
        DataError: the records cannot be read.
    """
    study = trained.study
    stream = cut_for_scoring(patients, study)
    while chunk := [unlabelled(one, study) for one in islice(stream, PATIENTS_AT_ONCE)]:
        chunk = [patient for patient in chunk if patient.stays]
        if not chunk:
            continue
        inputs = to_tensors(to_grid(chunk, study), trained.normalisation, study)
        scores = predict(trained.model, inputs.x_NTF, inputs.mask_NT)
        steps_N = inputs.mask_NT.sum(1).tolist()
        stays = [(patient.patient_id, stay) for patient in chunk for stay in patient.stays]
        for (patient_id, stay), score, steps in zip(stays, scores, steps_N, strict=True):
            yield StayScores(
                patient_id=patient_id,
                stay_id=stay.stay_id,
                scores=score[:steps] if study.task.per_step else score,
                inputs=inputs_of(stay, steps),
            )


def inputs_of(stay: Stay, steps: int) -> bytes:
    """Return the bytes of what a model reads of a window: its events, and how many steps it has."""
    columns = ((stay.hours_E, "<f4"), (stay.variable_E, "<i2"), (stay.value_E, "<f4"))
    return encode(
        "bedside-inputs", *(column.astype(kind).tobytes() for column, kind in columns), steps
    )


def write_predictions(
    file: Path, signed: SignedModel, predictions: Iterable[StayScores], *, form: Format
) -> int:
    """Write one row per stay (per-step tasks: per step), mode 0600; return the number of rows.

    Raises:
        SettingsError: the file cannot be written; an older file stays as it was.
    """
    rows = [row for prediction in predictions for row in _rows(signed, prediction)]
    text = _csv(rows, signed) if form == "csv" else "".join(json.dumps(r) + "\n" for r in rows)
    write_private_output(file, text.encode(), option="--out")
    return len(rows)


def _rows(signed: SignedModel, prediction: StayScores) -> Iterator[dict[str, Any]]:
    study = signed.trained.study
    whose = {"patient": prediction.patient_id, "stay": prediction.stay_id}
    for step, score_K in enumerate(np.atleast_2d(prediction.scores), start=1):
        when = {"until": step * study.data.step_h} if study.task.per_step else {}
        outputs = [answer(signed, output, float(score)) for output, score in enumerate(score_K)]
        yield whose | when | {"outputs": outputs}


def _csv(rows: list[dict[str, Any]], signed: SignedModel) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    when = ["until"] if signed.trained.study.task.per_step else []
    alarms = [] if signed.trained.study.task.kind == "regression" else ["alarms"]
    names = signed.manifest.outputs
    columns = [f"{name} {field}" for name in names for field in (*FIELDS, *alarms)]
    writer.writerow(["patient", "stay", *when, *columns])
    for row in rows:
        cells = [row[key] for key in ("patient", "stay", *when)]
        for output in row["outputs"]:
            cells += [output.get(field, "") for field in FIELDS]
            cells += ["; ".join(output.get("alarms", ()))] if alarms else []
        writer.writerow(cells)
    return text.getvalue()


def unlabelled(patient: Patient, study: Study) -> Patient:
    """Return the patient with labels of the task's shape, all NaN."""
    label = np.full(label_shape(study), np.nan, dtype=np.float32)
    return replace(patient, stays=tuple(replace(stay, label=label) for stay in patient.stays))
