"""A graphics card is taken only if it computes as it must."""

import torch

from consilium.shared.model import card_check
from consilium.shared.model.card_check import disagreement, find_card
from consilium.shared.model.graphics_card import GraphicsCard
from tests.emulated_card import emulated_card, written_again


def test_a_fit_card_agrees_and_one_that_computes_otherwise_is_told():
    class Rough(GraphicsCard):
        def give(self, values, rows):
            return super().give(values.half().to(values.dtype), rows)

    class ByBatch(GraphicsCard):
        def give(self, values, rows):
            return super().give(values * (1 + 1e-8 * rows), rows)

    device = torch.device("cpu")
    assert disagreement(emulated_card()) == ""
    assert "(rnn) are off by" in disagreement(Rough(device, written_again))
    assert "depend on who else" in disagreement(ByBatch(device, written_again))


def test_without_a_card_the_processor_is_used(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    find_card.cache_clear()
    assert find_card() == (None, "PyTorch finds no graphics card here, so the processor is used")
    find_card.cache_clear()


def test_a_card_is_used_if_it_is_fit_and_told_if_it_is_not(monkeypatch):
    def card(device, record):
        del device, record
        return emulated_card()

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "H200")
    monkeypatch.setattr(card_check, "CudaRecorder", lambda: written_again)
    monkeypatch.setattr(card_check, "GraphicsCard", card)
    find_card.cache_clear()
    found, told = find_card()
    assert found is not None
    assert told == "the graphics card H200 computes the recurrent layers in training"

    def lacking():
        raise torch.OutOfMemoryError

    monkeypatch.setattr(card_check, "CudaRecorder", lacking)
    find_card.cache_clear()
    assert find_card() == (
        None,
        "the graphics card here is not used, but the processor: the graphics card has too little "
        "memory free",
    )
    find_card.cache_clear()
