"""The gradient of a sample of patients: each patient's gradient is clipped, then all are summed.

Sampling is as the privacy accountant assumes: each patient takes part in each step with probability
``sampling_rate``, independently of everything else, with all of the patient's stays as one
contribution. A sample may be empty.
"""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from consilium.client.round.training_set import TrainingSet, sample_patients
from consilium.shared.crypto.keystream import Keystream
from consilium.shared.model.bookkeeping import Bookkeeping
from consilium.shared.model.branch import Branch
from consilium.shared.study.definition import Study

PIECE_NUMBERS = 1 << 24  # most intermediate numbers in memory at once: 64 MiB of float32
WRITTEN_NUMBERS = 1 << 23  # most numbers of patients' gradients in memory at once: 32 MiB


def clipped_gradient_sum(
    model: Branch, data: TrainingSet, study: Study, *, source: Keystream
) -> NDArray[np.float64]:
    """Return the sum (D,) of the clipped gradients of one Poisson sample of patients, unnoised.

    Guarantee: the sum is finite, and one patient changes it by at most ``clip_norm`` * (1 + 1e-5)
    in L2 norm, whatever the (finite) weights and the records; see
    :mod:`consilium.shared.model.bookkeeping`.
    """
    model.train()
    chosen = sample_patients(data.patients, study.training.sampling_rate, source)
    gradient_D, _ = gradient_sum(model, data, chosen, study.privacy.clip_norm, source)
    result: NDArray[np.float64] = gradient_D.numpy()
    return result


def gradient_sum(
    model: Branch,
    data: TrainingSet,
    chosen: NDArray[np.int64],
    clip_norm: float | None,
    source: Keystream,
) -> tuple[Tensor, NDArray[np.float64]]:
    """Return the summed gradients (D,) of the chosen patients, clipped or not, and their losses.

    Clipped they are float64 and finite; otherwise float32.

    Args:
        model: in training mode.
        data: this site's training patients.
        chosen: the sampled patients.
        clip_norm: bound on the L2 norm of each patient's gradient; None does not clip.
        source: dropout is drawn from it.
    """
    parameters = list(model.parameters())
    size = sum(p.numel() for p in parameters)
    total_D = torch.zeros(size, dtype=torch.float32 if clip_norm is None else torch.float64)
    generator = _dropout_generator(model, source)
    losses = [np.empty(0)]
    most_patients = max(1, len(chosen) if clip_norm is None else WRITTEN_NUMBERS // size)
    for piece in _pieces(model, data, chosen, most_patients):
        rows_N, patient_N = data.stays(piece)
        mask_NT = data.mask_NT[rows_N]
        books = None if clip_norm is None else Bookkeeping()
        loss_N = model.training_loss(
            data.x_NTF[rows_N], mask_NT, data.y[rows_N], books=books, generator=generator
        )
        if books is None or clip_norm is None:
            sums = list(torch.autograd.grad(loss_N.sum(), parameters))
        else:
            loss_N.sum().backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            sums, _ = books.clipped_sums(parameters, patient_N, len(piece), clip_norm)
        total_D += flat(sums)
        losses.append(loss_N.detach().double().numpy())
    return total_D, np.concatenate(losses)


def _pieces(
    model: Branch, data: TrainingSet, chosen: NDArray[np.int64], most_patients: int
) -> Iterator[NDArray[np.int64]]:
    """Split the chosen patients into pieces whose intermediate values fit ``PIECE_NUMBERS``.

    No piece has more than ``most_patients``.

    Patients without stays have gradient zero; they are left out here, not when sampling.
    """
    steps, features = data.x_NTF.shape[1:]
    most_stays = max(1, PIECE_NUMBERS // (steps * (features + model.numbers_kept)))
    stays_P = np.diff(data.starts)
    chosen = chosen[stays_P[chosen] > 0]
    piece_P = np.cumsum(stays_P[chosen]) // most_stays + np.arange(len(chosen)) // most_patients
    for number in np.unique(piece_P):
        yield chosen[piece_P == number]


def flat(tensors: list[Tensor]) -> Tensor:
    """Return all numbers of the tensors as one vector (D,)."""
    return torch.cat([tensor.reshape(-1) for tensor in tensors])


def _dropout_generator(model: Branch, source: Keystream) -> Generator | None:
    if model.dropout == 0:
        return None
    return Generator().manual_seed(int.from_bytes(source.bytes(7), "little"))
