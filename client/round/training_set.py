"""A site's training patients, arranged so that whole patients can be sampled."""

from dataclasses import dataclass, field
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from consilium.client.records.features import PatientTensors
from consilium.shared.crypto.keystream import Keystream
from consilium.shared.model.label_weights import weights_of_labels
from consilium.shared.study.definition import Study


@dataclass(frozen=True, kw_only=True)
class TrainingSet:
    """Stays arranged for sampling patients; the first axis of ``y`` is N.

    ``weight``, shaped like ``y``, is of each label in the loss; None where all weigh 1.

    ``rows_N`` lists the stays patient by patient: those of patient p are ``rows_N[starts[p] :
    starts[p + 1]]``.
    """

    x_NTF: Tensor
    mask_NT: Tensor
    y: Tensor
    patient_N: Tensor
    patients: int
    weight: Tensor | None = None
    rows_N: NDArray[np.int64] = field(init=False, repr=False)
    starts: NDArray[np.int64] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        patient_N = self.patient_N.numpy()
        stays_P = np.bincount(patient_N, minlength=self.patients)
        object.__setattr__(self, "rows_N", np.argsort(patient_N, kind="stable"))
        object.__setattr__(self, "starts", np.concatenate([[0], np.cumsum(stays_P)]))

    @classmethod
    def of(cls, patients: PatientTensors, study: Study, share_K: NDArray[np.float64]) -> Self:
        """Return a cohort's tensors in this arrangement, and what the study weighs labels by.

        ``share_K`` is that of :class:`consilium.shared.model.normalisation.Normalisation`.
        """
        return cls(
            x_NTF=patients.x_NTF,
            mask_NT=patients.mask_NT.bool(),
            y=patients.y_N,
            patient_N=patients.patient_N.long(),
            patients=patients.patients,
            weight=weights_of_labels(patients.y_N, study, share_K),
        )

    def stays(self, piece: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Return the rows (N,) of these patients' stays, and each row's index (N,) in ``piece``."""
        starts, stays = self.starts[piece], self.starts[piece + 1] - self.starts[piece]
        patient_N = np.repeat(np.arange(len(piece)), stays)
        within_N = np.arange(len(patient_N)) - np.repeat(np.cumsum(stays) - stays, stays)
        rows_N = self.rows_N[np.repeat(starts, stays) + within_N]
        return torch.from_numpy(rows_N), torch.from_numpy(patient_N)

    def weights(self, rows_N: Tensor) -> Tensor | None:
        """Return the weights of these rows' labels."""
        return None if self.weight is None else self.weight[rows_N]

    def __repr__(self) -> str:
        return f"TrainingSet({len(self.x_NTF)} stays of {self.patients} patients)"


def sample_patients(patients: int, rate: float, source: Keystream) -> NDArray[np.int64]:
    """Return the patients of one Poisson sample: each independently with probability ``rate``."""
    return np.flatnonzero(source.uniform_float64(patients) < rate)
