"""A private training step on a graphics card: checked against the processor, beside its rivals.

First the card must give the processor's clipped gradient sums and norms to 1e-5 of the longest,
for every cell, with padding and several stays a patient, and give a patient the same bits in any
batch. Then training steps are timed in turns in one process; the median of the turns counts. The
rivals' records and weights lie on the card before; ours moves a step's sample there, as a site
does. Single precision everywhere: TF32 is off.

    python benchmarks/graphics_card.py                 all shapes, under three minutes
    python benchmarks/graphics_card.py small icu       some of them

Without a card it says so, and ends with status 0. If the check fails, it ends with status 1.
"""

import argparse
import statistics
import sys
import time
import warnings
from collections.abc import Callable

import torch
from parts.steps import CLIP, SHAPES, TORCH, Shape, opacus, ordinary, ours
from parts.table import add_row

from consilium.shared.model.bookkeeping import Bookkeeping
from consilium.shared.model.card_check import find_card
from consilium.shared.model.graphics_card import PROCESSOR, GraphicsCard, Processor
from consilium.shared.model.recurrent import GRU, LSTM, RNN, Recurrent, computed_on

SHAPES_TIMED = ("small", "icu", "icu-2-layers", "icu-gru", "beats")
LARGEST_DIFFERENCE = 1e-5
TURNS, TURNS_S = 25, 2.0  # a way gets no further turn once its turns have taken this long
ALL_S = 150.0  # no further shape is begun after this long
PRIVATE, PROCESSOR_WAY, HOOKS = "ours, card, private", "ours, processor, private", "Opacus, hooks"


def clipped(place: Processor, layer: Recurrent) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the clipped sums of random patients, flat, and their norms."""
    generator = torch.Generator().manual_seed(7)
    x = torch.randn(96, 40, layer.inputs, generator=generator)
    mask = torch.arange(40) < torch.randint(1, 41, (96, 1), generator=generator)
    width = layer.hidden * (2 if layer.bidirectional else 1)
    direction = torch.randn(96, 40, width, generator=generator)
    patient, books = torch.arange(96) // 3, Bookkeeping()
    with computed_on(place, layer):
        (layer(x, mask, books) * direction).sum().backward()
    sums, norms = books.clipped_sums(list(layer.parameters()), patient, 32, CLIP)
    return torch.cat([part.flatten() for part in sums]), norms


def largest_difference(card: Processor) -> float:
    """Return how far card and processor are apart, relative to the longest sum and norm."""
    worst, generator = 0.0, torch.Generator().manual_seed(3)
    for cell in (RNN, LSTM, GRU):
        for layers, both in ((1, False), (2, True)):
            layer = cell(20, 33, layers=layers, bidirectional=both, generator=generator)
            for usual, found in zip(clipped(PROCESSOR, layer), clipped(card, layer), strict=True):
                worst = max(worst, float((usual - found).abs().max() / usual.abs().max()))
    return worst


def seconds(step: Callable[[], None]) -> float:
    torch.cuda.synchronize()
    start = time.perf_counter()
    step()
    torch.cuda.synchronize()
    return time.perf_counter() - start


def ways(shape: Shape, card: GraphicsCard) -> dict[str, Callable[[], Callable[[], None]]]:
    device = card.device
    return {
        TORCH: lambda: ordinary(shape, device),
        PRIVATE: lambda: ours(shape, private=True, kernel=True, card=card),
        "ours, card, ordinary": lambda: ours(shape, private=False, kernel=True, card=card),
        PROCESSOR_WAY: lambda: ours(shape, private=True, kernel=True),
        HOOKS: lambda: opacus(shape, "hooks", device),
        "Opacus, ghost": lambda: opacus(shape, "ghost", device),
    }


def milliseconds(shape: Shape, card: GraphicsCard) -> dict[str, float | str]:
    """Return each way's median milliseconds; a rival's error is a result."""
    steps, took = {}, {}
    found: dict[str, float | str] = {}
    for way, make in ways(shape, card).items():
        try:
            steps[way] = make()
            for _ in range(2):  # libraries make their plans, ours its recordings
                seconds(steps[way])
            took[way] = []
        except Exception as error:
            found[way] = f"fails: {type(error).__name__}"
    for _ in range(TURNS):
        for way, times in took.items():
            if sum(times) < TURNS_S:
                times.append(seconds(steps[way]))
    return found | {way: 1e3 * statistics.median(times) for way, times in took.items()}


def tell(name: str, shape: Shape, found: dict[str, float | str]) -> None:
    print(f"\n{name}: {shape}")
    base, hooks, mine = found[TORCH], found[HOOKS], found[PRIVATE]
    for way, ms in found.items():
        if not isinstance(ms, float):
            print(f"  {way:28s} {ms}")
            continue
        ratio = f"{ms / base:8.2f}x" if isinstance(base, float) else ""
        print(f"  {way:28s}{ms:9.2f} ms{ratio}", flush=True)
    if isinstance(mine, float):
        for rival, beside in ((base, f"{TORCH}, on the card"), (hooks, f"{HOOKS}, on the card")):
            if isinstance(rival, float):
                measure = f"a private step on the card, {name}"
                add_row(measure, mine, unit="ms", rival=rival, beside=beside)


def main() -> int:
    warnings.simplefilter("ignore")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shapes", nargs="*", default=[*SHAPES_TIMED])
    options = parser.parse_args()
    began = time.perf_counter()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    card, told = find_card()
    if card is None:
        print(f"{told}; nothing was measured")
        return int(torch.cuda.is_available())  # a card that is not fit is a failure; none is not
    print(told)
    worst = largest_difference(card)
    right = worst <= LARGEST_DIFFERENCE
    print(
        f"clipped sums and norms: {worst:.1g} from the processor's, {LARGEST_DIFFERENCE:g} allowed"
    )
    for name in options.shapes:
        if time.perf_counter() - began < ALL_S:
            tell(name, SHAPES[name], milliseconds(SHAPES[name], card))
        else:
            print(f"\n{name}: not measured, the time is over")
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
