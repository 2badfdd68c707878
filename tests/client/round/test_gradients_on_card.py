"""Training with a graphics card, emulated: the processor's numbers, and its place if it fails."""

import logging

import numpy as np
import pytest
import torch

from consilium.client.hospital import graphics_card
from consilium.client.hospital.graphics_card import allowed_card, what_computes
from consilium.client.hospital.policy import Policy
from consilium.client.round.gradients import gradient_sum
from consilium.client.round.training import train_locally, train_own
from consilium.shared.model.graphics_card import GraphicsCard
from consilium.shared.model.network import build_model
from consilium.shared.model.weight_vector import to_vector
from tests.client.round.made_up_patients import FEATURES, patients, stream
from tests.emulated_card import emulated_card, written_again
from tests.study_text import small_study

NETWORKS = {
    "last": {"cell": "lstm"},
    "attention": {"cell": "gru", "pooling": "attention", "layer_norm": True},
    "both": {"cell": "rnn", "layers": 2, "bidirectional": True, "projection": 3},
    "drops": {"cell": "lstm", "layers": 2, "dropout": 0.3},
}


class Counting(GraphicsCard):
    calls = 0

    def forward(self, *arguments, **named):
        self.calls += 1
        return super().forward(*arguments, **named)


def counting() -> Counting:
    return Counting(torch.device("cpu"), written_again)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("clip", [None, 0.3])
def test_the_sum_with_a_card_is_that_of_the_processor(network, clip):
    study = small_study(model=NETWORKS[network])
    model, data, card = (
        build_model(study, FEATURES, seed=1).train(),
        patients(9, stays=2),
        counting(),
    )
    everyone = np.arange(9)
    usual, losses = gradient_sum(model, data, everyone, clip, stream(1))
    found, same_losses = gradient_sum(model, data, everyone, clip, stream(1), card)
    assert card.calls > 0
    np.testing.assert_allclose(found.numpy(), usual.numpy(), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(same_losses, losses, rtol=1e-5, atol=1e-6)


def test_all_steps_of_local_training_use_the_card():
    study = small_study(
        training={"local_steps": 3, "sampling_rate": 1.0},
        personalisation={"ditto": {"steps": 2, "learning_rate": 0.1, "pull": 0.1}},
    )
    data, card = patients(6), counting()
    results = []
    for used in (None, card):
        model = build_model(study, FEATURES, seed=1)
        begun_D = to_vector(model)
        train_locally(model, data, study, noise_multiplier=None, source=stream(1), card=used)
        train_own(model, data, study, global_D=begun_D, source=stream(2), card=used)
        results.append(to_vector(model))
    assert card.calls == 5
    np.testing.assert_allclose(results[1], results[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("failure", "told"),
    [
        (torch.OutOfMemoryError("tried to allocate 3 GiB for 77 patients"), "too little memory"),
        (torch.AcceleratorError("an illegal memory access"), "failed (AcceleratorError)"),
    ],
)
@pytest.mark.parametrize("when", ["forward", "backward"])
def test_if_the_card_fails_the_processor_goes_on_and_the_card_is_not_asked_again(
    failure, told, when, caplog
):
    class Failing(Counting):
        def forward(self, *arguments, **named):
            found = super().forward(*arguments, **named)
            if when == "forward":
                raise failure
            return found

        def backward(self, *arguments, **named):
            raise failure

    study = small_study(model=NETWORKS["drops"] | {"dropout": 0.0})
    model, data = build_model(study, FEATURES, seed=1).train(), patients(5)
    card = Failing(torch.device("cpu"), written_again)
    usual, _ = gradient_sum(model, data, np.arange(5), 0.3, stream(1))
    with caplog.at_level(logging.WARNING):
        found, _ = gradient_sum(model, data, np.arange(5), 0.3, stream(1), card)
        again, _ = gradient_sum(model, data, np.arange(5), 0.3, stream(1), card)
    assert torch.equal(found, usual)
    assert torch.equal(again, usual)
    calls = {"forward": 1, "backward": 2}[when]  # two layers
    assert (card.calls, card.usable) == (calls, False)
    (message,) = caplog.messages
    assert message.startswith("from now on the processor is used: the graphics card ")
    assert told in message
    assert "77" not in message


def test_an_error_that_is_not_the_cards_is_met_on_the_processor_too(monkeypatch):
    def loss(*_, **__):
        raise RuntimeError("a defect")

    model, data = build_model(small_study(), FEATURES, seed=1).train(), patients(5)
    monkeypatch.setattr(model, "training_loss", loss)
    with pytest.raises(RuntimeError, match="a defect"):
        gradient_sum(model, data, np.arange(5), 0.3, stream(1), emulated_card())


def test_the_policy_decides_whether_a_card_is_looked_for(monkeypatch):
    card = emulated_card()
    monkeypatch.setattr(
        "consilium.shared.model.card_check.find_card", lambda: (card, "a card computes")
    )
    assert allowed_card(Policy()) is None
    assert allowed_card(Policy(gpu=True)) is card
    assert what_computes(Policy()) == "the processor is used, as [machine] gpu = false says"
    assert what_computes(Policy(gpu=True)) == "a card computes"
    assert graphics_card.log.name == "consilium.client.hospital.graphics_card"
