"""One training step of a recurrent network: ordinary torch.nn, ours, and Opacus's DPLSTM / DPGRU.

A step is forward, backward and an SGD update; a private one also clips every patient's gradient and
adds noise. All ways of a shape are timed in turns in one process, and the best of the turns counts,
so that a busy machine slows all alike. Memory is the growth of the peak resident size over one
step, each way in a process of its own. "floor" is the arithmetic of our private step alone, at the
speed of one large matrix product measured beside it.

    python benchmarks/recurrent.py                 all shapes, about ten minutes
    python benchmarks/recurrent.py --turns 3 small one shape, fewer turns
    OMP_NUM_THREADS=1 python benchmarks/recurrent.py --processor-time
                                                   count processor time: for a busy machine
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from shared.bookkeeping import Bookkeeping
from shared.kernels import through_time
from shared.kernels.build import kernel_status
from shared.layers import Linear
from shared.masks import Keystream
from shared.recurrent import GRU, LSTM

ROOT = Path(__file__).resolve().parents[1]
KERNEL, PLAIN, OPACUS, TORCH = "kernel", "plain", "opacus", "torch"
WAYS = {
    "torch.nn, ordinary": (TORCH, False),
    "ours, kernel, ordinary": (KERNEL, False),
    "ours, kernel, private": (KERNEL, True),
    "ours, plain PyTorch, ordinary": (PLAIN, False),
    "ours, plain PyTorch, private": (PLAIN, True),
    "Opacus, hooks, private": (OPACUS, True),
    "Opacus, ghost, private": ("ghost", True),
}
FLAGS = ("processor_time", "without_opacus")
CLIP, NOISE, RATE = 1.0, 1.0, 0.01
Step = Callable[[], None]
Clock = Callable[[], float]


@dataclass(frozen=True)
class Shape:
    cell: str
    batch: int
    steps: int
    inputs: int
    hidden: int
    layers: int = 1
    both: bool = False

    @property
    def operations(self) -> float:
        """Multiplications and additions of our private step's products through the layers."""
        gates = (4 if self.cell == "lstm" else 3) * self.hidden
        directions, total = 2 if self.both else 1, 0.0
        for layer in range(self.layers):
            width = self.inputs if layer == 0 else directions * self.hidden
            forward = gates * (width + self.hidden)
            back = gates * self.hidden + (gates * width if layer else 0)
            sums = gates * (width + self.hidden)
            norms = min(self.steps * (gates + width + self.hidden), sums)
            total += directions * (forward + back + sums + norms)
        return 2.0 * self.batch * self.steps * total


SHAPES = {
    "small": Shape("lstm", 64, 24, 16, 32),
    "icu": Shape("lstm", 256, 48, 76, 128),
    "icu-2-layers": Shape("lstm", 256, 48, 76, 128, layers=2),
    "icu-gru": Shape("gru", 256, 48, 76, 128),
    "beats": Shape("lstm", 128, 187, 1, 64, both=True),
    "waveform": Shape("lstm", 32, 1000, 12, 128),
}


def data(shape: Shape) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(shape.batch, shape.steps, shape.inputs, generator=generator)
    return x, (x[:, :, 0].mean(1) > 0).float()


def loss_of(logits: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return nn.functional.binary_cross_entropy_with_logits(logits[:, 0], y, reduction="sum")


def ours(shape: Shape, *, private: bool, kernel: bool) -> Step:
    x, y = data(shape)
    layer = (LSTM if shape.cell == "lstm" else GRU)(
        shape.inputs, shape.hidden, layers=shape.layers, bidirectional=shape.both
    )
    head = Linear(shape.hidden * (2 if shape.both else 1), 1)
    parameters = [*layer.parameters(), *head.parameters()]
    patients, source = torch.arange(shape.batch), Keystream(os.urandom(32))
    serves = through_time.serves if kernel else (lambda _: False)

    def step() -> None:
        kept, through_time.serves = through_time.serves, serves
        books = Bookkeeping() if private else None
        loss = loss_of(head(layer(x, None, books)[:, -1], books), y)
        if books is None:
            gradients = list(torch.autograd.grad(loss, parameters))
        else:
            loss.backward()
            gradients, _ = books.clipped_sums(parameters, patients, shape.batch, CLIP)
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        if private:
            flat += torch.from_numpy(source.standard_normal(len(flat))).mul_(NOISE * CLIP).float()
        flat *= -RATE / shape.batch
        with torch.no_grad():
            changes = flat.split([p.numel() for p in parameters])
            for p, change in zip(parameters, changes, strict=True):
                p.add_(change.view_as(p))
        through_time.serves = kept

    return step


class Network(nn.Module):
    def __init__(self, layer: nn.Module, size: int) -> None:
        super().__init__()
        self.layer, self.head = layer, nn.Linear(size, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.layer(x)[0][:, -1])


def ordinary(shape: Shape) -> Step:
    x, y = data(shape)
    layer = (nn.LSTM if shape.cell == "lstm" else nn.GRU)(
        shape.inputs,
        shape.hidden,
        num_layers=shape.layers,
        bidirectional=shape.both,
        batch_first=True,
    )
    network = Network(layer, shape.hidden * (2 if shape.both else 1))
    optimizer = torch.optim.SGD(network.parameters(), RATE / shape.batch)

    def step() -> None:
        optimizer.zero_grad()
        loss_of(network(x), y).backward()
        optimizer.step()

    return step


def opacus(shape: Shape, *, ghost: bool) -> Step:
    from opacus import GradSampleModule, layers
    from opacus.grad_sample.grad_sample_module_fast_gradient_clipping import (
        GradSampleModuleFastGradientClipping,
    )
    from opacus.optimizers import DPOptimizer
    from opacus.optimizers.optimizer_fast_gradient_clipping import DPOptimizerFastGradientClipping
    from opacus.utils.fast_gradient_clipping_utils import DPLossFastGradientClipping

    x, y = data(shape)
    layer = (layers.DPLSTM if shape.cell == "lstm" else layers.DPGRU)(
        shape.inputs,
        shape.hidden,
        num_layers=shape.layers,
        bidirectional=shape.both,
        batch_first=True,
    )
    network = Network(layer, shape.hidden * (2 if shape.both else 1))
    settings = {
        "noise_multiplier": NOISE,
        "max_grad_norm": CLIP,
        "expected_batch_size": shape.batch,
    }
    if not ghost:
        wrapped = GradSampleModule(network, loss_reduction="sum")
        optimizer = DPOptimizer(torch.optim.SGD(wrapped.parameters(), RATE), **settings)

        def step() -> None:
            optimizer.zero_grad()
            loss_of(wrapped(x), y).backward()
            optimizer.step()

        return step
    wrapped = GradSampleModuleFastGradientClipping(
        network, max_grad_norm=CLIP, use_ghost_clipping=True, loss_reduction="mean"
    )
    optimizer = DPOptimizerFastGradientClipping(
        torch.optim.SGD(wrapped.parameters(), RATE), **settings
    )
    criterion = DPLossFastGradientClipping(
        wrapped, optimizer, nn.BCEWithLogitsLoss(reduction="mean"), "mean"
    )

    def ghost_step() -> None:
        optimizer.zero_grad()
        criterion(wrapped(x), y[:, None]).backward()
        optimizer.step()

    return ghost_step


def step_of(way: str, shape: Shape) -> Step:
    kind, private = WAYS[way]
    if kind == TORCH:
        return ordinary(shape)
    if kind in (OPACUS, "ghost"):
        return opacus(shape, ghost=kind == "ghost")
    return ours(shape, private=private, kernel=kind == KERNEL)


def product_speed(clock: Clock) -> float:
    """Operations a second of one large matrix product, the best of a few."""
    a = torch.randn(1024, 1024)
    best = 0.0
    for _ in range(6):
        start = clock()
        a @ a
        best = max(best, 2 * 1024**3 / (clock() - start))
    return best


def milliseconds(shape: Shape, turns: int, clock: Clock) -> dict[str, float | str]:
    """Best time of each way; Opacus, which is slow, takes two turns."""
    steps: dict[str, Step] = {}
    best: dict[str, float | str] = {}
    for way in WAYS:
        try:
            step = step_of(way, shape)
            step()  # warm up
            steps[way], best[way] = step, float("inf")
        except Exception as error:  # a competitor that cannot run is a result
            best[way] = f"fails: {type(error).__name__}"
    for turn in range(turns):
        for way, step in steps.items():
            if way.startswith("Opacus") and turn >= 2:
                continue
            start = clock()
            step()
            best[way] = min(float(best[way]), 1e3 * (clock() - start))
    best["floor"] = 1e3 * shape.operations / product_speed(clock)
    return best


def megabytes(shape: Shape, way: str) -> float:
    """Growth of the peak resident size by one step."""
    step = step_of(way, shape)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    step()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def in_process(*arguments: str) -> str:
    command = [sys.executable, str(Path(__file__)), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(  # noqa: S603 - this file itself
        command, capture_output=True, text=True, env=environment, check=False
    )
    return done.stdout.strip().splitlines()[-1] if done.returncode == 0 else '"fails"'


def table(name: str, turns: int, *flags: str) -> None:
    shape = SHAPES[name]
    times = json.loads(in_process("--time", name, "--turns", str(turns), *flags))
    print(f"\n{name}: {shape}")
    if not isinstance(times, dict):
        print("  the measurement failed")
        return
    base_ms = times["torch.nn, ordinary"]
    base_mb = json.loads(in_process("--memory", name, "torch.nn, ordinary"))
    print(f"  {'':32s}{'ms':>10s}{'ratio':>9s}{'peak MB':>9s}{'ratio':>8s}")
    for way in WAYS:
        ms = times[way]
        if not isinstance(ms, float):
            print(f"  {way:32s} {ms}")
            continue
        mb = json.loads(in_process("--memory", name, way))
        print(f"  {way:32s}{ms:10.2f}{ms / base_ms:8.2f}x{mb:9.1f}{mb / base_mb:7.2f}x", flush=True)
    print(
        f"  {'floor (arithmetic alone)':32s}{times['floor']:10.2f}{times['floor'] / base_ms:8.2f}x"
    )


def main() -> None:
    warnings.simplefilter("ignore")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shapes", nargs="*", default=[*SHAPES])
    parser.add_argument("--processor-time", action="store_true")
    parser.add_argument("--without-opacus", action="store_true")
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--time", metavar="SHAPE")
    parser.add_argument("--memory", nargs=2, metavar=("SHAPE", "WAY"))
    options = parser.parse_args()
    if options.without_opacus:
        for way in [way for way in WAYS if way.startswith("Opacus")]:
            del WAYS[way]
    if options.time:
        clock = time.process_time if options.processor_time else time.perf_counter
        print(json.dumps(milliseconds(SHAPES[options.time], options.turns, clock)))
    elif options.memory:
        print(json.dumps(megabytes(SHAPES[options.memory[0]], options.memory[1])))
    else:
        print(f"{torch.get_num_threads()} threads; {kernel_status().sentence}")
        flags = [f"--{name.replace('_', '-')}" for name in FLAGS if vars(options)[name]]
        for name in options.shapes:
            table(name, options.turns, *flags)


if __name__ == "__main__":
    main()
