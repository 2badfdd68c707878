"""Local training at a hospital, with patient-level differential privacy or without.

The main path: sample patients -> one forward and backward pass, every patient's gradient clipped,
all summed (:mod:`consilium.client.round.gradients`) -> add noise from a cryptographic keystream ->
optimiser step. A step is that of Opacus's ``DPOptimizer`` (Abadi et al. 2016, algorithm 1): noise
of standard deviation noise_multiplier * clip_norm on the sum, divided by the *expected* number of
sampled patients, which with privacy is counted from the declared size.

Nothing here changes a global random state or torch's settings, so sites may train in parallel
threads.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from consilium.client.round.gradients import flat, gradient_sum
from consilium.client.round.optimizers import Optimizer
from consilium.client.round.training_set import TrainingSet, sample_patients
from consilium.shared.crypto.keystream import Keystream
from consilium.shared.model.branch import Branch
from consilium.shared.model.graphics_card import GraphicsCard
from consilium.shared.study.definition import Study
from consilium.shared.study.training import Training


@dataclass(frozen=True, kw_only=True)
class LocalTraining:
    """What happened in training; without noise, so it must not leave the site.

    sampled: number of patients in each step. mean_loss: mean loss of the sampled stays before their
    step; NaN if none.
    """

    steps: int
    sampled: tuple[int, ...]
    mean_loss: float


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class FirstStep:
    """A round's first step as far as it was computed together with other sites'.

    Attributes:
        chosen: the patients drawn.
        source: what they were drawn from; the noise is drawn next.
        sum_D: the sum of their clipped gradients (D,), float64.
        loss_N: their stays' losses.
    """

    chosen: NDArray[np.int64]
    source: Keystream
    sum_D: Tensor
    loss_N: NDArray[np.float64]


def train_locally(
    model: Branch,
    data: TrainingSet,
    study: Study,
    *,
    noise_multiplier: float | None,
    source: Keystream,
    patients: int | None = None,
    correction_D: NDArray[np.float32] | None = None,
    first: FirstStep | None = None,
    card: GraphicsCard | None = None,
) -> LocalTraining:
    """Train ``model`` in place for the study's ``local_steps``.

    Args:
        model: the global model as received.
        data: this site's training patients.
        study: training and privacy settings.
        noise_multiplier: noise standard deviation / clip norm. None trains without privacy; then,
            on one torch thread, the result depends only on model, data, study and source.
        source: sampling, dropout and noise are drawn from it; with privacy, secret and fresh.
        patients: what a step's sum is divided by, times the sampling rate; None takes the true
            number. A release must take the declared one: the true one would scale the noise, and so
            be told by it.
        correction_D: added to every step's gradient after clipping and noise. It may depend on
            patients only through noisy results.
        first: the first step's clipped sum, if it was computed before; with privacy only.
        card: computes the recurrent layers, as of :func:`.gradient_sum`.

    Guarantee: with privacy, whatever the (finite) weights and the records, nothing here fails, and
    the steps depend on patients only through finite clipped sums with noise.
    """
    weights_D = flat([parameter.detach() for parameter in model.parameters()])
    correction = None if correction_D is None else torch.from_numpy(correction_D)
    optimizer = Optimizer(study.training, weights_D, correction_D=correction)
    noise = None
    if noise_multiplier is not None:
        noise = ClipAndNoise(clip_norm=study.privacy.clip_norm, multiplier=noise_multiplier)
    expected = study.training.sampling_rate * (data.patients if patients is None else patients)
    return _descend(
        model, data, study.training, weights_D, optimizer, noise, expected, source, first, card
    )


def train_own(
    model: Branch,
    data: TrainingSet,
    study: Study,
    *,
    global_D: NDArray[np.float32],
    source: Keystream,
    card: GraphicsCard | None = None,
) -> LocalTraining:
    """Train a site's second model in place by Ditto's steps, without clipping or noise.

    In a study with privacy, nothing that depends on the result may leave the site.

    Args:
        model: the site's second model, as the rounds before left it.
        data: this site's training patients.
        study: sets how strongly the model is pulled towards the global one.
        global_D: the global weights (D,) of this round.
        source: sampling and dropout are drawn from it.
        card: computes the recurrent layers, as of :func:`.gradient_sum`.
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
    weights_D = flat([parameter.detach() for parameter in model.parameters()])
    anchor_D = torch.from_numpy(global_D.copy())
    optimizer = Optimizer(training, weights_D, pull=ditto.pull, anchor_D=anchor_D)
    expected = training.sampling_rate * data.patients
    return _descend(model, data, training, weights_D, optimizer, None, expected, source, card=card)


@dataclass(frozen=True, kw_only=True)
class ClipAndNoise:
    """A step's privacy: the clip norm of a patient's gradient, and noise deviation / clip norm."""

    clip_norm: float
    multiplier: float


def _descend(
    model: Branch,
    data: TrainingSet,
    training: Training,
    weights_D: Tensor,
    optimizer: Optimizer,
    noise: ClipAndNoise | None,
    expected: float,
    source: Keystream,
    first: FirstStep | None = None,
    card: GraphicsCard | None = None,
) -> LocalTraining:
    """Take ``local_steps`` steps; ``optimizer`` changes ``weights_D``, the model's weights.

    ``expected`` is the number of patients in a step's sample on average; its mean gradient is the
    sum divided by it.
    """
    model.train()
    sampled, losses = [], []
    for step in range(training.local_steps):
        if first is not None and step == 0:
            chosen, gradient_D, loss_N = first.chosen, first.sum_D, first.loss_N
        else:
            chosen = sample_patients(data.patients, training.sampling_rate, source)
            clip_norm = None if noise is None else noise.clip_norm
            gradient_D, loss_N = gradient_sum(model, data, chosen, clip_norm, source, card)
        if noise is not None:
            gradient_D = _noised(gradient_D, noise.multiplier * noise.clip_norm, source)
        optimizer.step(gradient_D / expected)
        _write(model, weights_D)
        sampled.append(len(chosen))
        losses.append(loss_N)
    every = np.concatenate(losses)
    mean_loss = float(every.mean()) if every.size else math.nan
    return LocalTraining(steps=len(sampled), sampled=tuple(sampled), mean_loss=mean_loss)


def _noised(sum_D: Tensor, deviation: float, source: Keystream) -> Tensor:
    """Add Gaussian noise made of four draws, as Opacus's secure mode does.

    A single floating-point draw can reveal the random numbers that it was made from; recovering
    those of four draws from their sum is infeasible (Holohan & Braghin 2021, section 5.1).
    """
    noise_D = source.standard_normal(4 * len(sum_D)).reshape(4, -1).sum(axis=0)
    return (sum_D.double() + torch.from_numpy(noise_D).mul_(deviation / 2)).float()


def _write(model: Branch, weights_D: Tensor) -> None:
    """Copy the flat weights into the model."""
    parameters = list(model.parameters())
    with torch.no_grad():
        for parameter, part in zip(
            parameters, torch.split(weights_D, [p.numel() for p in parameters]), strict=True
        ):
            parameter.copy_(part.view_as(parameter))
