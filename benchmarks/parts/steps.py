"""One training step in each way that the benchmark compares: forward, backward, SGD update.

A private step also clips every patient's gradient and adds noise. Ours is a site's: from a
cryptographic keystream, with four draws for each value. Opacus's is from torch's generator, its
default.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass

import torch
from opacus import GradSampleModule, layers
from opacus.grad_sample import GradSampleModuleExpandedWeights
from opacus.grad_sample.grad_sample_module_fast_gradient_clipping import (
    GradSampleModuleFastGradientClipping,
)
from opacus.optimizers import DPOptimizer
from opacus.optimizers.optimizer_fast_gradient_clipping import DPOptimizerFastGradientClipping
from opacus.utils.fast_gradient_clipping_utils import DPLossFastGradientClipping
from torch import nn

from consilium.shared.crypto.keystream import Keystream
from consilium.shared.kernels import through_time
from consilium.shared.model.bookkeeping import Bookkeeping
from consilium.shared.model.graphics_card import PROCESSOR, GraphicsCard
from consilium.shared.model.layers import Linear
from consilium.shared.model.recurrent import GRU, LSTM, computed_on

CLIP, NOISE, RATE = 1.0, 1.0, 0.01
CPU = torch.device("cpu")
Step = Callable[[], None]


@dataclass(frozen=True)
class Shape:
    cell: str
    batch: int
    steps: int
    inputs: int
    hidden: int
    layers: int = 1
    both: bool = False

    def __str__(self) -> str:
        many = f", {self.layers} layers" if self.layers > 1 else ""
        both = ", both directions" if self.both else ""
        return (
            f"{self.cell.upper()}, batch {self.batch}, {self.steps} steps, {self.inputs} inputs, "
            f"{self.hidden} units{many}{both}"
        )

    @property
    def operations(self) -> float:
        """Multiplications and additions of the matrix products in our private step."""
        gates = (4 if self.cell == "lstm" else 3) * self.hidden
        directions, total = 2 if self.both else 1, 0.0
        for layer in range(self.layers):
            width = self.inputs if layer == 0 else directions * self.hidden
            forward = gates * (width + self.hidden)
            back = gates * self.hidden + (gates * width if layer else 0)
            total += directions * (forward + back + forward)
        return 2.0 * self.batch * self.steps * total

    def layer(self, lstm: type[nn.Module], gru: type[nn.Module]) -> nn.Module:
        return (lstm if self.cell == "lstm" else gru)(
            self.inputs,
            self.hidden,
            num_layers=self.layers,
            bidirectional=self.both,
            batch_first=True,
        )

    @property
    def width(self) -> int:
        return self.hidden * (2 if self.both else 1)


SHAPES = {
    "small": Shape("lstm", 64, 24, 16, 32),
    "icu": Shape("lstm", 256, 48, 76, 128),
    "icu-2-layers": Shape("lstm", 256, 48, 76, 128, layers=2),
    "icu-gru": Shape("gru", 256, 48, 76, 128),
    "beats": Shape("lstm", 128, 187, 1, 64, both=True),
    "waveform": Shape("lstm", 32, 1000, 12, 128),
}


def data(shape: Shape, device: torch.device = CPU) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(shape.batch, shape.steps, shape.inputs, generator=generator)
    return x.to(device), (x[:, :, 0].mean(1) > 0).float().to(device)


def loss_of(logits: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return nn.functional.binary_cross_entropy_with_logits(logits[:, 0], y, reduction="sum")


def ours(shape: Shape, *, private: bool, kernel: bool, card: GraphicsCard | None = None) -> Step:
    """Return our step; the sample is on the processor, whatever computes the recurrent layer."""
    x, y = data(shape)
    layer = (LSTM if shape.cell == "lstm" else GRU)(
        shape.inputs, shape.hidden, layers=shape.layers, bidirectional=shape.both
    )
    head = Linear(shape.width, 1)
    parameters = [*layer.parameters(), *head.parameters()]
    patients, source = torch.arange(shape.batch), Keystream(os.urandom(32))
    serves = through_time.serves if kernel else (lambda _: False)

    def step() -> None:
        kept, through_time.serves = through_time.serves, serves
        books = Bookkeeping() if private else None
        with computed_on(card or PROCESSOR, layer):
            loss = loss_of(head(layer(x, None, books)[:, -1], books), y)
        if books is None:
            gradients = list(torch.autograd.grad(loss, parameters))
        else:
            loss.backward()
            gradients, _ = books.clipped_sums(parameters, patients, shape.batch, CLIP)
        flat = torch.cat([gradient.flatten() for gradient in gradients]).float()
        if private:
            noise = source.standard_normal(4 * len(flat)).reshape(4, -1).sum(axis=0)
            flat += torch.from_numpy(noise).mul_(NOISE * CLIP / 2).float()
        flat *= -RATE / shape.batch
        with torch.no_grad():
            changes = flat.split([p.numel() for p in parameters])
            for p, change in zip(parameters, changes, strict=True):
                p.add_(change.view_as(p))
        through_time.serves = kept

    return step


class Network(nn.Module):
    def __init__(self, shape: Shape, layer: nn.Module) -> None:
        super().__init__()
        self.layer, self.head = layer, nn.Linear(shape.width, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.layer(x)[0][:, -1])


def ordinary(shape: Shape, device: torch.device = CPU) -> Step:
    x, y = data(shape, device)
    network = Network(shape, shape.layer(nn.LSTM, nn.GRU)).to(device)
    optimizer = torch.optim.SGD(network.parameters(), RATE / shape.batch)

    def step() -> None:
        optimizer.zero_grad()
        loss_of(network(x), y).backward()
        optimizer.step()

    return step


def opacus(shape: Shape, mode: str, device: torch.device = CPU) -> Step:
    """Return a step with Opacus's layers; mode is one of its grad_sample_mode, or functorch."""
    x, y = data(shape, device)
    network = Network(shape, shape.layer(layers.DPLSTM, layers.DPGRU)).to(device)
    if mode == "ghost":
        return _ghost(shape, network, x, y)
    if mode == "ew":
        wrapped = GradSampleModuleExpandedWeights(network, loss_reduction="sum")
    else:
        functorch = mode == "functorch"
        wrapped = GradSampleModule(network, loss_reduction="sum", force_functorch=functorch)
    optimizer = DPOptimizer(torch.optim.SGD(wrapped.parameters(), RATE), **_settings(shape))

    def step() -> None:
        optimizer.zero_grad()
        loss_of(wrapped(x), y).backward()
        optimizer.step()

    return step


def _ghost(shape: Shape, network: Network, x: torch.Tensor, y: torch.Tensor) -> Step:
    wrapped = GradSampleModuleFastGradientClipping(
        network, max_grad_norm=CLIP, use_ghost_clipping=True, loss_reduction="mean"
    )
    optimizer = DPOptimizerFastGradientClipping(
        torch.optim.SGD(wrapped.parameters(), RATE), **_settings(shape)
    )
    criterion = DPLossFastGradientClipping(
        wrapped, optimizer, nn.BCEWithLogitsLoss(reduction="mean"), "mean"
    )

    def step() -> None:
        optimizer.zero_grad()
        criterion(wrapped(x), y[:, None]).backward()
        optimizer.step()

    return step


def _settings(shape: Shape) -> dict[str, float]:
    return {
        "noise_multiplier": NOISE,
        "max_grad_norm": CLIP,
        "expected_batch_size": shape.batch,
    }


TORCH = "torch.nn, ordinary"
WAYS: dict[str, Callable[[Shape], Step]] = {
    TORCH: ordinary,
    "ours, kernel, ordinary": lambda shape: ours(shape, private=False, kernel=True),
    "ours, kernel, private": lambda shape: ours(shape, private=True, kernel=True),
    "ours, plain PyTorch, ordinary": lambda shape: ours(shape, private=False, kernel=False),
    "ours, plain PyTorch, private": lambda shape: ours(shape, private=True, kernel=False),
    "Opacus, hooks, private": lambda shape: opacus(shape, "hooks"),
    "Opacus, functorch, private": lambda shape: opacus(shape, "functorch"),
    "Opacus, ew, private": lambda shape: opacus(shape, "ew"),
    "Opacus, ghost, private": lambda shape: opacus(shape, "ghost"),
}
