"""Which weights are shared: by name, in the order of the flat vector."""

import numpy as np
import pytest

from consilium.shared.model.network import build_model
from consilium.shared.model.own_weights import shared_weights
from consilium.shared.model.weight_vector import to_vector
from consilium.shared.study.definition import Study
from consilium.shared.study.input_names import feature_names
from tests.study_text import small_study


def named(study: Study) -> list[str]:
    """The name of every weight in the order of the flat vector, found by writing numbers in."""
    model = build_model(study, len(feature_names(study)), seed=0)
    names = list(model.state_dict())
    for number, value in enumerate(model.state_dict().values()):
        value.fill_(number)
    return [names[int(number)] for number in to_vector(model)]


@pytest.mark.parametrize(
    ("parts", "own"),
    [
        (["head"], {"head.weight", "head.bias", "skip.weight"}),
        (["norm"], {"norm.weight", "norm.bias"}),
        (
            ["head", "norm", "inputs"],
            {"head.weight", "head.bias", "skip.weight", "norm.weight", "norm.bias"},
        ),
        (["inputs"], set()),
        ([], set()),
    ],
)
@pytest.mark.parametrize("cell", ["lstm", "gru-d"])
def test_a_kept_parts_weights_and_no_others_are_the_sites_own(parts, own, cell):
    study = small_study(
        model={"layer_norm": True, "skip": True, "hidden": 3, "cell": cell},
        personalisation={"parts": parts},
    )
    names = named(study)
    shared_D = shared_weights(study, len(names))
    assert shared_D.shape == (len(names),)
    kept = {name for name, shared in zip(names, shared_D, strict=True) if not shared}
    assert kept == own
    assert not any(shared_D[names.index(name)] for name in own)


@pytest.mark.parametrize("cell", ["rnn", "gru", "gru-d"])
def test_parameters_come_in_the_order_of_the_flat_vector(cell):
    """Training reads parameters one after the other, messages the state dict."""
    study = small_study(model={"cell": cell, "layer_norm": True, "skip": True, "hidden": 3})
    model = build_model(study, len(feature_names(study)), seed=0)
    assert [name for name, _ in model.named_parameters()] == list(model.state_dict())
    assert np.isfinite(to_vector(model)).all()
