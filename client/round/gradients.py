"""The gradient of a sample of patients: each patient's gradient is clipped, then all are summed.

Sampling is as the privacy accountant assumes: each patient takes part in each step with probability
``sampling_rate``, independently of everything else, with all of the patient's stays as one
contribution. A sample may be empty.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from consilium.client.round.training_set import TrainingSet, sample_patients
from consilium.shared.crypto.keystream import Keystream
from consilium.shared.model.bookkeeping import Bookkeeping
from consilium.shared.model.branch import Branch
from consilium.shared.model.graphics_card import GraphicsCard, failure_of
from consilium.shared.model.recurrent import computed_on
from consilium.shared.study.definition import Study

log = logging.getLogger(__name__)

PIECE_NUMBERS = 1 << 24  # most intermediate numbers in memory at once: 64 MiB of float32
WRITTEN_NUMBERS = 1 << 23  # most numbers of patients' gradients in memory at once: 32 MiB


def clipped_gradient_sum(
    model: Branch,
    data: TrainingSet,
    study: Study,
    *,
    source: Keystream,
    card: GraphicsCard | None = None,
) -> NDArray[np.float64]:
    """Return the sum (D,) of the clipped gradients of one Poisson sample of patients, unnoised.

    ``card`` as of :func:`gradient_sum`.

    Guarantee: the sum is finite, and one patient changes it by at most ``clip_norm`` * (1 + 1e-5)
    in L2 norm, whatever the (finite) weights and the records; see
    :mod:`consilium.shared.model.bookkeeping`.
    """
    model.train()
    chosen = sample_patients(data.patients, study.training.sampling_rate, source)
    gradient_D, _ = gradient_sum(model, data, chosen, study.privacy.clip_norm, source, card)
    result: NDArray[np.float64] = gradient_D.numpy()
    return result


@dataclass(frozen=True, eq=False, repr=False)
class Sample:
    """One site's sample of a step: its training patients, and which of them were drawn."""

    data: TrainingSet
    chosen: NDArray[np.int64]


def clipped_sums_together(
    model: Branch, samples: Sequence[Sample], clip_norm: float
) -> list[tuple[Tensor, NDArray[np.float64]]]:
    """Return what :func:`gradient_sum` returns for each sample with clipping.

    Samples of many sites go through the network together. A patient's gradient depends on that
    patient's rows alone (see :mod:`consilium.shared.model.bookkeeping`), and a site's patients are
    added up in the same order as if the site were alone: with the compiled kernel the results are
    the same to the bit, in plain PyTorch to rounding.

    Args:
        model: in training mode, without dropout; all sites' weights are the same.
        samples: one of each site, all of one study.
        clip_norm: bound on the L2 norm of each patient's gradient.
    """
    parameters = list(model.parameters())
    size = sum(p.numel() for p in parameters)
    sums = [torch.zeros(size, dtype=torch.float64) for _ in samples]
    losses = [[np.empty(0)] for _ in samples]
    for batch in _batches(model, samples, max(1, WRITTEN_NUMBERS // size)):
        parts = [samples[place].data.stays(piece) for place, piece in batch]
        starts = np.cumsum([0, *(len(rows_N) for rows_N, _ in parts)]).tolist()
        before = np.cumsum([0, *(len(piece) for _, piece in batch)]).tolist()
        data = [samples[place].data for place, _ in batch]
        picked = list(zip(data, parts, strict=True))
        mask_NT = torch.cat([one.mask_NT[rows_N] for one, (rows_N, _) in picked])
        x_NTF = torch.cat([one.x_NTF[rows_N] for one, (rows_N, _) in picked])
        y = torch.cat([one.y[rows_N] for one, (rows_N, _) in picked])
        patient_N = torch.cat(
            [of_N + first for (_, of_N), first in zip(parts, before, strict=False)]
        )
        books = Bookkeeping()
        weighed = [one.weights(rows_N) for one, (rows_N, _) in picked]
        weight = None if weighed[0] is None else torch.cat([w for w in weighed if w is not None])
        loss_N = model.training_loss(x_NTF, mask_NT, y, books=books, weight=weight)
        loss_N.sum().backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        spans = [slice(first, last) for first, last in pairwise(starts)]
        found = books.clipped_sums_by_span(parameters, patient_N, before[-1], clip_norm, spans)
        every_N = loss_N.detach().double().numpy()
        for (place, _), one_sum, rows in zip(batch, found, spans, strict=True):
            sums[place] += flat(one_sum)
            losses[place].append(every_N[rows])
    return [(sum_D, np.concatenate(of)) for sum_D, of in zip(sums, losses, strict=True)]


def _batches(
    model: Branch, samples: Sequence[Sample], most_patients: int
) -> Iterator[list[tuple[int, NDArray[np.int64]]]]:
    """Yield pieces of samples that go through the network together, with their sample's place.

    A sample is cut into the pieces that it is cut into alone.
    """
    batch: list[tuple[int, NDArray[np.int64]]] = []
    stays = patients = 0
    for place, sample in enumerate(samples):
        most_stays = _most_stays(model, sample.data)
        for piece in _pieces(model, sample.data, sample.chosen, most_patients):
            more = int((sample.data.starts[piece + 1] - sample.data.starts[piece]).sum())
            if batch and (stays + more > most_stays or patients + len(piece) > most_patients):
                yield batch
                batch, stays, patients = [], 0, 0
            batch.append((place, piece))
            stays, patients = stays + more, patients + len(piece)
    if batch:
        yield batch


def gradient_sum(
    model: Branch,
    data: TrainingSet,
    chosen: NDArray[np.int64],
    clip_norm: float | None,
    source: Keystream,
    card: GraphicsCard | None = None,
) -> tuple[Tensor, NDArray[np.float64]]:
    """Return the summed gradients (D,) of the chosen patients, clipped or not, and their losses.

    Clipped they are float64 and finite; otherwise float32.

    Args:
        model: in training mode.
        data: this site's training patients.
        chosen: the sampled patients.
        clip_norm: bound on the L2 norm of each patient's gradient; None does not clip.
        source: dropout is drawn from it.
        card: computes the recurrent layers. If it fails, of which only the log tells, all is done
            on the processor, and the card is not asked again.
    """
    if card is not None and card.usable:
        try:
            with computed_on(card, model):
                return _gradient_sum(model, data, chosen, clip_norm, source, len(chosen))
        except RuntimeError as error:  # memory, a lost device, a library's own failure
            card.usable = False
            log.warning("from now on the processor is used: %s", failure_of(error))
    written = WRITTEN_NUMBERS // sum(p.numel() for p in model.parameters())
    most_patients = len(chosen) if clip_norm is None else written
    return _gradient_sum(model, data, chosen, clip_norm, source, most_patients)


def _gradient_sum(
    model: Branch,
    data: TrainingSet,
    chosen: NDArray[np.int64],
    clip_norm: float | None,
    source: Keystream,
    most_patients: int,
) -> tuple[Tensor, NDArray[np.float64]]:
    """See :func:`gradient_sum`; no more than ``most_patients`` at once, 1 at least."""
    parameters = list(model.parameters())
    size = sum(p.numel() for p in parameters)
    total_D = torch.zeros(size, dtype=torch.float32 if clip_norm is None else torch.float64)
    generator = _dropout_generator(model, source)
    losses = [np.empty(0)]
    for piece in _pieces(model, data, chosen, max(1, most_patients)):
        rows_N, patient_N = data.stays(piece)
        mask_NT = data.mask_NT[rows_N]
        books = None if clip_norm is None else Bookkeeping()
        loss_N = model.training_loss(
            data.x_NTF[rows_N],
            mask_NT,
            data.y[rows_N],
            books=books,
            generator=generator,
            weight=data.weights(rows_N),
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
    most_stays = _most_stays(model, data)
    stays_P = np.diff(data.starts)
    chosen = chosen[stays_P[chosen] > 0]
    piece_P = np.cumsum(stays_P[chosen]) // most_stays + np.arange(len(chosen)) // most_patients
    for number in np.unique(piece_P):
        yield chosen[piece_P == number]


def _most_stays(model: Branch, data: TrainingSet) -> int:
    """Return how many stays' intermediate values fit ``PIECE_NUMBERS``, at least 1."""
    steps, features = data.x_NTF.shape[1:]
    return max(1, PIECE_NUMBERS // (steps * (features + model.numbers_kept)))


def flat(tensors: list[Tensor]) -> Tensor:
    """Return all numbers of the tensors as one vector (D,)."""
    return torch.cat([tensor.reshape(-1) for tensor in tensors])


def _dropout_generator(model: Branch, source: Keystream) -> Generator | None:
    if model.dropout == 0:
        return None
    return Generator().manual_seed(int.from_bytes(source.bytes(7), "little"))
