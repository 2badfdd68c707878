"""A trained model and its predictions."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from consilium.client.bedside.prediction import predict_patients
from consilium.client.sources.common.source import Patient, Source, WithoutLabels
from consilium.shared.errors import SettingsError
from consilium.shared.export.signed_model import Trained
from consilium.shared.study.definition import Study
from consilium.simulations.api.folders import Folder
from consilium.simulations.runs.export import export_run


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Prediction:
    """What a model predicts for one stay.

    Attributes:
        patient_id: as the records name the patient.
        stay_id: as the records name the stay.
        values: float64, read-only, of shape (K,), or (T, K) for the T observed steps in a per-step
            study. A risk from 0 to 1 for each label or class; in regression a value in the
            target's unit.
    """

    patient_id: str
    stay_id: str
    values: NDArray[np.float64]

    @property
    def value(self) -> float:
        """The number predicted in a study with one output; in a per-step study, at the last step.

        Raises:
            AttributeError: the study has several outputs.
        """
        if self.values.shape[-1] != 1:
            raise AttributeError(
                f"a prediction of {self.values.shape[-1]} outputs has no one value; use values"
            )
        return float(self.values[..., -1, 0] if self.values.ndim > 1 else self.values[0])

    def __repr__(self) -> str:
        return f"Prediction(values of shape {self.values.shape})"  # never a patient's numbers


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class TrainedModel:
    """The model of a finished run, ready to be used.

    Attributes:
        study: the study it was trained in.
        site: the site whose own model it is; None for the model that all sites share.
    """

    study: Study
    site: str | None = None
    _trained: Trained = field(repr=False)
    _folder: Folder = field(repr=False)

    def predict(self, records: Source | Iterable[Patient]) -> tuple[Prediction, ...]:
        """Return a prediction for every stay that has a window, in the records' order.

        Outcomes are not used. If the study cuts windows, each stay is scored by its last known
        hours.

        Args:
            records: a source, or patients.

        Raises:
            DataError: the records cannot be read, or do not fit the study.
            SettingsError: what was given is neither, or each site keeps weights of its own in
                this study and this model is without them.
        """
        own = self.study.personalisation
        if own.weights and self.site is None:
            raise SettingsError(
                f"study {self.study.name} leaves {own.described} to each site, so the shared model "
                "predicts nothing by itself; use result.model_at(site)"
            )
        patients = _patients(records, self.study)
        return tuple(
            Prediction(
                patient_id=one.patient_id, stay_id=one.stay_id, values=_read_only(one.scores)
            )
            for one in predict_patients(self._trained, patients)
        )

    def save(
        self, path: str | PathLike[str], *, onnx: bool = False, recalibrate: bool = False
    ) -> Path:
        """Write the model into a new folder, signed, as ``consilium-simulate export`` does.

        Args:
            path: the folder; must not exist.
            onnx: also write the model in ONNX form; needs the extra ``onnx``.
            recalibrate: correct its risks by the validation patients' counts.

        Returns:
            The folder.

        Raises:
            SettingsError: the folder exists or cannot be written, or this is one site's own model.
        """
        if self.site is not None:
            raise SettingsError(
                f"this is {self.site}'s own model, which no export has; save the result's model"
            )
        export_run(self._folder.path, Path(path), onnx=onnx, recalibrate=recalibrate)
        return Path(path)

    def __repr__(self) -> str:
        whose = "" if self.site is None else f" as {self.site} uses it"
        return f"TrainedModel(study {self.study.name!r}{whose})"


def _patients(records: Source | Iterable[Patient], study: Study) -> Iterable[Patient]:
    if not hasattr(records, "read_patients"):
        if isinstance(records, str | PathLike) or not isinstance(records, Iterable):
            raise SettingsError(
                f"records: {type(records).__name__} is neither a source nor patients; give an "
                "object with read_patients(study), or consilium.Patient objects"
            )
        return records
    source = records.without_labels() if isinstance(records, WithoutLabels) else records
    return source.read_patients(study)


def _read_only(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    kept = scores.copy()
    kept.setflags(write=False)
    return kept
