"""Gradients of several sites in one pass: each site's sum is what it is alone."""

import numpy as np
import pytest
import torch

from consilium.client.round import gradients
from consilium.client.round.gradients import Sample, clipped_sums_together, gradient_sum
from consilium.client.round.training_set import TrainingSet
from consilium.shared.crypto.keystream import Keystream
from consilium.shared.kernels.build import load_kernel
from consilium.shared.model import recurrent
from consilium.shared.model.network import RecurrentModel
from consilium.shared.study.training import Model, Task

STEPS, FEATURES, CLIP = 5, 4, 0.3
MODELS = {
    "lstm, last": {"cell": "lstm"},
    "gru, both ways, attention, norm": {
        "cell": "gru",
        "bidirectional": True,
        "pooling": "attention",
        "layer_norm": True,
    },
    "rnn, two layers, projection, mean": {
        "cell": "rnn",
        "layers": 2,
        "projection": 3,
        "pooling": "mean",
    },
    "lstm, linear path": {"cell": "lstm", "skip": True},
}


def network(**settings: object) -> RecurrentModel:
    generator = torch.Generator().manual_seed(5)
    task = Task(kind="binary", outputs=1)
    return RecurrentModel(FEATURES, Model(hidden=6, **settings), task, generator).train()


def site(number: int, patients: int, *, stays: int) -> TrainingSet:
    stream = np.random.default_rng(number)
    patient_N = np.sort(stream.integers(0, patients, size=patients * stays))
    rows = len(patient_N)
    mask_NT = np.arange(STEPS)[None] >= stream.integers(0, 3, size=(rows, 1))
    return TrainingSet(
        x_NTF=torch.from_numpy(stream.normal(size=(rows, STEPS, FEATURES)).astype(np.float32)),
        mask_NT=torch.from_numpy(mask_NT),
        y=torch.from_numpy((stream.random(rows) < 0.4).astype(np.float32)),
        patient_N=torch.from_numpy(patient_N),
        patients=patients,
    )


def samples() -> list[Sample]:
    stream, made = np.random.default_rng(1), []
    for number, (patients, stays) in enumerate([(7, 1), (3, 4), (1, 1), (9, 2), (5, 1)]):
        chosen = np.flatnonzero(stream.random(patients) < 0.7)
        made.append(Sample(data=site(number, patients, stays=stays), chosen=chosen))
    return [*made, Sample(data=made[0].data, chosen=np.empty(0, np.int64))]


@pytest.mark.sampled(4)
@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("pieces", ["one pass", "several passes"])
@pytest.mark.parametrize("name", MODELS)
def test_each_sites_clipped_sum_is_what_it_is_alone_and_to_the_bit_in_the_kernel(
    name: str, pieces: str, compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if compiled and load_kernel()[0] is None:
        pytest.skip("the kernel was not compiled here")
    if not compiled:
        monkeypatch.setattr(recurrent.through_time, "serves", lambda _: False)
    model = network(**MODELS[name])
    if pieces == "several passes":
        size = sum(parameter.numel() for parameter in model.parameters())
        monkeypatch.setattr(gradients, "WRITTEN_NUMBERS", 6 * size)
    together = clipped_sums_together(model, samples(), CLIP)
    for sample, (sum_D, loss_N) in zip(samples(), together, strict=True):
        source = Keystream(bytes(32))
        alone_D, alone_N = gradient_sum(model, sample.data, sample.chosen, CLIP, source)
        if compiled:
            assert torch.equal(sum_D, alone_D)
            assert np.array_equal(loss_N, alone_N)
        assert float((sum_D - alone_D).abs().max()) <= 1e-6 * CLIP
        assert loss_N == pytest.approx(alone_N, rel=1e-6)
    assert any(float(sum_D.norm()) > CLIP for sum_D, _ in together)
