"""Local training at a hospital, with patient-level differential privacy or without.

The main path: sample patients -> one forward and backward -> every patient's gradient clipped, all
summed -> noise from a cryptographic keystream -> optimiser. The steps mean what they mean in
Opacus's ``DPOptimizer`` (Abadi et al. 2016, algorithm 1): noise of standard deviation
noise_multiplier * clip_norm on the sum, divided by the *expected* number of sampled patients.

What is randomised here is what the accountant counts: each patient takes part in each step with
probability ``sampling_rate``, independently of everything; all of a patient's stays come along and
form one contribution. An empty sample is a sample.

Nothing here touches a global random state or torch's settings, so sites may train in parallel
threads.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from consilium.client.records.features import PatientTensors
from consilium.client.round.optimizers import Optimizer
from consilium.shared.crypto.keystream import Keystream
from consilium.shared.model.bookkeeping import Bookkeeping
from consilium.shared.model.network import RecurrentModel
from consilium.shared.study.definition import Study
from consilium.shared.study.training import Training

PIECE_NUMBERS = 1 << 24  # intermediate numbers held at once in a step: 64 MiB of float32


@dataclass(frozen=True, kw_only=True)
class TrainingSet:
    """Stays arranged for sampling patients; ``y`` has first axis N.

    ``rows_N`` lists stays patient by patient; patient p's are those from ``starts[p]`` up to
    ``starts[p + 1]``.
    """

    x_NTF: Tensor
    mask_NT: Tensor
    y: Tensor
    patient_N: Tensor
    patients: int
    rows_N: NDArray[np.int64] = field(init=False, repr=False)
    starts: NDArray[np.int64] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        patient_N = self.patient_N.numpy()
        stays_P = np.bincount(patient_N, minlength=self.patients)
        object.__setattr__(self, "rows_N", np.argsort(patient_N, kind="stable"))
        object.__setattr__(self, "starts", np.concatenate([[0], np.cumsum(stays_P)]))

    @classmethod
    def of(cls, patients: PatientTensors) -> Self:
        """Arrange a cohort's tensors."""
        return cls(
            x_NTF=patients.x_NTF,
            mask_NT=patients.mask_NT.bool(),
            y=patients.y_N,
            patient_N=patients.patient_N.long(),
            patients=patients.patients,
        )

    def __repr__(self) -> str:
        return f"TrainingSet({len(self.x_NTF)} stays of {self.patients} patients)"


@dataclass(frozen=True, kw_only=True)
class LocalTraining:
    """What happened; for this site's own eyes, since nothing in it has noise.

    sampled: patients in each step. mean_loss: of the sampled stays before their step; NaN if none.
    """

    steps: int
    sampled: tuple[int, ...]
    mean_loss: float


def train_locally(
    model: RecurrentModel,
    data: TrainingSet,
    study: Study,
    *,
    noise_multiplier: float | None,
    source: Keystream,
    correction_D: NDArray[np.float32] | None = None,
) -> LocalTraining:
    """Train ``model`` in place for the study's ``local_steps``.

    Args:
        model: the global model as received.
        data: this site's training patients.
        study: training and privacy settings.
        noise_multiplier: noise standard deviation / clip norm; None trains without privacy, and
            then the result depends on model, data, study and source alone (on one torch thread).
        source: sampling, dropout and noise are drawn from it; secret and fresh under privacy.
        correction_D: added to every step's gradient, after clipping and noise; nothing unless
            given. It must not depend on patients but by what has noise.

    Raises:
        PrivacyError: a gradient is not finite.
    """
    weights_D = _flat([parameter.detach() for parameter in model.parameters()])
    correction = None if correction_D is None else torch.from_numpy(correction_D)
    optimizer = Optimizer(study.training, weights_D, correction_D=correction)
    noise = None
    if noise_multiplier is not None:
        noise = ClipAndNoise(clip_norm=study.privacy.clip_norm, multiplier=noise_multiplier)
    return _descend(model, data, study.training, weights_D, optimizer, noise, source)


def train_own(
    model: RecurrentModel,
    data: TrainingSet,
    study: Study,
    *,
    global_D: NDArray[np.float32],
    source: Keystream,
) -> LocalTraining:
    """Train a site's second model in place by Ditto's steps, without clipping and noise.

    Nothing that depends on the result may leave the site where the study has privacy.

    Args:
        model: the site's own, from the rounds before.
        data: this site's training patients.
        study: says how near the model is held to the global one.
        global_D: the global weights (D,) of this round.
        source: sampling and dropout are drawn from it.
    """
    ditto = study.personalisation.ditto
    if ditto is None:
        raise ValueError("the study asks for no second model; set [personalisation.ditto]")
    training = Training(
        local_steps=ditto.steps,
        sampling_rate=study.training.sampling_rate,
        learning_rate=ditto.learning_rate,
        weight_decay=study.training.weight_decay,
    )
    weights_D = _flat([parameter.detach() for parameter in model.parameters()])
    anchor_D = torch.from_numpy(global_D.copy())
    optimizer = Optimizer(training, weights_D, pull=ditto.pull, anchor_D=anchor_D)
    return _descend(model, data, training, weights_D, optimizer, None, source)


@dataclass(frozen=True, kw_only=True)
class ClipAndNoise:
    """What hides one patient in a step: each gradient's bound, and noise / that bound."""

    clip_norm: float
    multiplier: float


def _descend(
    model: RecurrentModel,
    data: TrainingSet,
    training: Training,
    weights_D: Tensor,
    optimizer: Optimizer,
    noise: ClipAndNoise | None,
    source: Keystream,
) -> LocalTraining:
    """Take ``local_steps`` steps; ``weights_D`` are the model's, which ``optimizer`` changes."""
    expected = training.sampling_rate * data.patients
    model.train()
    sampled, losses = [], []
    for _ in range(training.local_steps):
        chosen = sample_patients(data.patients, training.sampling_rate, source)
        clip_norm = None if noise is None else noise.clip_norm
        gradient_D, loss_N = _gradient_sum(model, data, chosen, clip_norm, source)
        if noise is not None:
            gradient_D = _noised(gradient_D, noise.multiplier * noise.clip_norm, source)
        optimizer.step(gradient_D / expected)
        _write(model, weights_D)
        sampled.append(len(chosen))
        losses.append(loss_N)
    every = np.concatenate(losses)
    mean_loss = float(every.mean()) if every.size else math.nan
    return LocalTraining(steps=len(sampled), sampled=tuple(sampled), mean_loss=mean_loss)


def clipped_gradient_sum(
    model: RecurrentModel, data: TrainingSet, study: Study, *, source: Keystream
) -> NDArray[np.float64]:
    """Return the sum (D,) of the clipped gradients of one Poisson sample of patients, no noise.

    Guarantee: one patient changes the sum by at most ``clip_norm`` in L2 norm, to float32 rounding.

    Raises:
        PrivacyError: a gradient is not finite.
    """
    model.train()
    chosen = sample_patients(data.patients, study.training.sampling_rate, source)
    gradient_D, _ = _gradient_sum(model, data, chosen, study.privacy.clip_norm, source)
    result: NDArray[np.float64] = gradient_D.double().numpy()
    return result


def sample_patients(patients: int, rate: float, source: Keystream) -> NDArray[np.int64]:
    """Return the patients of one Poisson sample: each independently with probability ``rate``."""
    return np.flatnonzero(source.uniform_float64(patients) < rate)


def predict(
    model: RecurrentModel, x_NTF: Tensor, mask_NT: Tensor, *, rows: int = 512
) -> NDArray[np.float64]:
    """Return scores (N, K), or (N, T, K) per step, ``rows`` stays at a time."""
    model.eval()
    with torch.no_grad():
        parts = [
            model.scores(model(x_NTF[start : start + rows], mask_NT[start : start + rows]))
            for start in range(0, len(x_NTF), rows)
        ]
    scores: NDArray[np.float64] = torch.cat(parts).double().numpy()
    return scores


def predict_with_loss(
    model: RecurrentModel, patients: PatientTensors, *, rows: int = 512
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return scores as :func:`predict`, and every stay's loss (N,)."""
    model.eval()
    scores, losses = [], []
    with torch.no_grad():
        for start in range(0, len(patients.x_NTF), rows):
            piece = slice(start, start + rows)
            mask_NT = patients.mask_NT[piece]
            logits = model(patients.x_NTF[piece], mask_NT)
            scores.append(model.scores(logits))
            losses.append(model.loss_per_stay(logits, patients.y_N[piece], mask_NT))
    return torch.cat(scores).double().numpy(), torch.cat(losses).double().numpy()


def _gradient_sum(
    model: RecurrentModel,
    data: TrainingSet,
    chosen: NDArray[np.int64],
    clip_norm: float | None,
    source: Keystream,
) -> tuple[Tensor, NDArray[np.float64]]:
    """Return the summed gradients (D,) of the chosen patients, clipped or not, and their losses."""
    parameters = list(model.parameters())
    total_D = torch.zeros(sum(p.numel() for p in parameters), dtype=parameters[0].dtype)
    generator = _dropout_generator(model, source)
    losses = [np.empty(0)]
    for piece in _pieces(model, data, chosen):
        rows_N, patient_N = _stays(data, piece)
        mask_NT = data.mask_NT[rows_N]
        books = None if clip_norm is None else Bookkeeping()
        logits = model(data.x_NTF[rows_N], mask_NT, books=books, generator=generator)
        loss_N = model.loss_per_stay(logits, data.y[rows_N], mask_NT)
        if books is None or clip_norm is None:
            sums = list(torch.autograd.grad(loss_N.sum(), parameters))
        else:
            loss_N.sum().backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            sums, _ = books.clipped_sums(parameters, patient_N, len(piece), clip_norm)
        total_D += _flat(sums)
        losses.append(loss_N.detach().double().numpy())
    return total_D, np.concatenate(losses)


def _pieces(
    model: RecurrentModel, data: TrainingSet, chosen: NDArray[np.int64]
) -> Iterator[NDArray[np.int64]]:
    """Part the chosen patients so that a piece's intermediate values fit ``PIECE_NUMBERS``.

    A patient without stays has the gradient zero and is left out here, not in the sampling.
    """
    steps, features = data.x_NTF.shape[1:]
    recurrent = model.recurrent
    width = features + 8 * recurrent.hidden * recurrent.layers * (1 + recurrent.bidirectional)
    most_stays = max(1, PIECE_NUMBERS // (steps * width))
    stays_P = np.diff(data.starts)
    chosen = chosen[stays_P[chosen] > 0]
    piece_P = np.cumsum(stays_P[chosen]) // most_stays
    for number in np.unique(piece_P):
        yield chosen[piece_P == number]


def _stays(data: TrainingSet, piece: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
    """Return the rows (N,) of these patients' stays, and each row's place (N,) in ``piece``."""
    starts, stays = data.starts[piece], data.starts[piece + 1] - data.starts[piece]
    patient_N = np.repeat(np.arange(len(piece)), stays)
    within_N = np.arange(len(patient_N)) - np.repeat(np.cumsum(stays) - stays, stays)
    rows_N = data.rows_N[np.repeat(starts, stays) + within_N]
    return torch.from_numpy(rows_N), torch.from_numpy(patient_N)


def _noised(sum_D: Tensor, deviation: float, source: Keystream) -> Tensor:
    """Add Gaussian noise made of four draws, as Opacus's secure mode does.

    One floating-point draw betrays its exact inputs; guessing four of them from their sum is out of
    reach (Holohan & Braghin 2021, section 5.1).
    """
    noise_D = source.standard_normal(4 * len(sum_D)).reshape(4, -1).sum(axis=0)
    return (sum_D.double() + torch.from_numpy(noise_D).mul_(deviation / 2)).to(sum_D.dtype)


def _dropout_generator(model: RecurrentModel, source: Keystream) -> Generator | None:
    if model.dropout == 0:
        return None
    return Generator().manual_seed(int.from_bytes(source.bytes(7), "little"))


def _flat(tensors: list[Tensor]) -> Tensor:
    return torch.cat([tensor.reshape(-1) for tensor in tensors])


def _write(model: RecurrentModel, weights_D: Tensor) -> None:
    """Copy the flat weights into the model."""
    parameters = list(model.parameters())
    with torch.no_grad():
        for parameter, part in zip(
            parameters, torch.split(weights_D, [p.numel() for p in parameters]), strict=True
        ):
            parameter.copy_(part.view_as(parameter))
