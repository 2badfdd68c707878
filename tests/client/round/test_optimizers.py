"""The flat optimisers against torch.optim."""

import pytest
import torch

from consilium.client.round.optimizers import Optimizer
from consilium.shared.study.training import Training

TORCH = {
    "sgd": lambda p, t: torch.optim.SGD(
        p, t.learning_rate, momentum=t.momentum, weight_decay=t.weight_decay
    ),
    "adam": lambda p, t: torch.optim.Adam(p, t.learning_rate, weight_decay=t.weight_decay),
    "adamw": lambda p, t: torch.optim.AdamW(p, t.learning_rate, weight_decay=t.weight_decay),
    "rmsprop": lambda p, t: torch.optim.RMSprop(
        p, t.learning_rate, momentum=t.momentum, weight_decay=t.weight_decay
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", TORCH)
@pytest.mark.parametrize("momentum", [0.0, 0.8])
@pytest.mark.parametrize("weight_decay", [0.0, 0.05])
def test_steps_equal_those_of_torch(name, momentum, weight_decay):
    training = Training(
        optimizer=name, learning_rate=0.03, momentum=momentum, weight_decay=weight_decay
    )
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(40, generator=generator)
    ours, parameter = start.clone(), torch.nn.Parameter(start.clone())
    optimizer, reference = Optimizer(training, ours), TORCH[name]([parameter], training)
    for _ in range(5):
        gradient = torch.randn(40, generator=generator)
        parameter.grad = gradient.clone()
        reference.step()
        optimizer.step(gradient)
    torch.testing.assert_close(ours, parameter.detach(), rtol=1e-5, atol=1e-6)


def test_gradient_clip_bounds_the_step():
    weights = torch.zeros(4)
    optimizer = Optimizer(Training(learning_rate=1.0, gradient_clip=0.5), weights)
    optimizer.step(torch.full((4,), 10.0))
    assert weights.norm().item() == pytest.approx(0.5)
    optimizer.step(torch.full((4,), -0.01))
    assert weights.norm().item() == pytest.approx(0.48)


def test_l1_pulls_weights_towards_zero():
    weights = torch.tensor([1.0, -1.0, 0.0])
    Optimizer(Training(learning_rate=0.1, l1=0.5), weights).step(torch.zeros(3))
    torch.testing.assert_close(weights, torch.tensor([0.95, -0.95, 0.0]))


def test_the_proximal_term_is_the_gradient_of_its_penalty():
    training = Training(learning_rate=0.1, proximal=0.5, gradient_clip=1.0)
    generator = torch.Generator().manual_seed(0)
    anchor = torch.randn(7, generator=generator)
    ours, w = anchor.clone(), anchor.clone()
    optimizer = Optimizer(training, ours)
    for _ in range(4):
        gradient = torch.randn(7, generator=generator)
        distance = (w - anchor).requires_grad_()
        (penalty,) = torch.autograd.grad(0.25 * distance.square().sum(), distance)
        w = w - 0.1 * (gradient / max(1.0, gradient.norm().item()) + penalty)
        optimizer.step(gradient)
    torch.testing.assert_close(ours, w, rtol=1e-5, atol=1e-6)
    assert not torch.equal(ours, anchor)
