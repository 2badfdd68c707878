"""One training step of a recurrent network: ordinary torch.nn, ours, and Opacus's DPLSTM / DPGRU.

All ways of a shape are timed in turns in one process, by the clock, and the median of the turns
counts; a way whose turns take long gets fewer of them, one at least after one to warm up. Memory is
the growth of the peak resident size over one step, each way in a process of its own.

"floor" is the arithmetic of our private step's products alone, at the speed of the processor's
multiply-add units measured beside it (benchmarks/parts/peak.c): no program can be faster by doing
the same arithmetic in float32.

    python benchmarks/recurrent.py                 all shapes, about five minutes
    python benchmarks/recurrent.py --turns 5 small one shape, fewer turns
    python benchmarks/recurrent.py --without-opacus
"""

import argparse
import ctypes
import multiprocessing
import resource
import shutil
import statistics
import subprocess
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from parts.steps import SHAPES, TORCH, WAYS, Shape
from parts.table import add_row

from consilium.shared.kernels.build import kernel_status

PEAK = Path(__file__).parent / "parts" / "peak.c"
PEAK_ROUNDS = 4_000_000
TURNS_S = 4.0  # a way gets no further turn once its turns have taken this long
HOOKS = "Opacus, hooks, private"
OURS = "ours, kernel, private"


def peak_speed(threads: int) -> float:
    """Return operations per second: of multiply-add units, or without compiler of a product."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        a = torch.randn(1024, 1024)
        return max(2 * 1024**3 / seconds(lambda: a @ a) for _ in range(6))
    with tempfile.TemporaryDirectory() as folder:
        built = Path(folder) / "peak.so"
        flags = ["-O3", "-march=native", "-ffp-contract=fast", "-shared", "-fPIC", "-pthread"]
        subprocess.run(  # noqa: S603 - a compiler found on PATH, on our own source
            [compiler, *flags, str(PEAK), "-o", str(built)], check=True
        )
        function = ctypes.CDLL(str(built)).peak
        function.restype, function.argtypes = ctypes.c_double, [ctypes.c_int, ctypes.c_long]
        return max(function(threads, PEAK_ROUNDS) for _ in range(5))


def seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def milliseconds(shape: Shape, ways: list[str], turns: int) -> dict[str, float | str]:
    """Return each way's median milliseconds, and the floor; a competitor's error is a result."""
    steps, took = {}, {}
    found: dict[str, float | str] = {}
    for way in ways:
        try:
            steps[way] = WAYS[way](shape)
            steps[way]()  # warm up
            took[way] = []
        except Exception as error:
            found[way] = f"fails: {type(error).__name__}"
    for _ in range(turns):
        for way, times in took.items():
            if sum(times) < TURNS_S:
                times.append(seconds(steps[way]))
    found |= {way: 1e3 * statistics.median(times) for way, times in took.items()}
    found["floor"] = 1e3 * shape.operations / peak_speed(torch.get_num_threads())
    return found


def megabytes(shape: Shape, way: str) -> float:
    """Return the growth of the peak resident size in one step, in megabytes."""
    step = WAYS[way](shape)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    step()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def apart(work: Callable[..., Any], *arguments: Any) -> Any:
    """Run in a new process, forked before this one computes anything; None if it fails."""
    receiver, sender = multiprocessing.Pipe(duplex=False)

    def child() -> None:
        sender.send(work(*arguments))

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    sender.close()
    try:
        return receiver.recv()
    except EOFError:
        return None
    finally:
        process.join()


def table(name: str, ways: list[str], turns: int) -> None:
    shape = SHAPES[name]
    times = apart(milliseconds, shape, ways, turns)
    print(f"\n{name}: {shape}")
    if times is None:
        print("  the measurement failed")
        return
    base_ms, base_mb = times[TORCH], apart(megabytes, shape, TORCH)
    hooks_ms = times.get(HOOKS)
    print(f"  {'':30s}{'ms':>9s}{'ratio':>8s}{'Opacus hooks':>14s}{'peak MB':>9s}{'ratio':>7s}")
    for way in ways:
        ms = times[way]
        if not isinstance(ms, float):
            print(f"  {way:30s} {ms}")
            continue
        faster = f"{hooks_ms / ms:.1f}x faster" if isinstance(hooks_ms, float) else "-"
        mb = apart(megabytes, shape, way)
        memory = "    fails" if mb is None else f"{mb:9.1f}{mb / base_mb:6.2f}x"
        print(f"  {way:30s}{ms:9.2f}{ms / base_ms:7.2f}x{faster:>14s}{memory}", flush=True)
    floor = times["floor"]
    print(f"  {'floor (arithmetic alone)':30s}{floor:9.2f}{floor / base_ms:7.2f}x")
    if isinstance(times.get(OURS), float) and isinstance(base_ms, float):
        add_row(
            f"a private training step, {name}", times[OURS], unit="ms", rival=base_ms, floor=floor,
            beside="torch.nn, ordinary training",
        )  # fmt: skip


def main() -> None:
    warnings.simplefilter("ignore")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shapes", nargs="*", default=[*SHAPES])
    parser.add_argument("--without-opacus", action="store_true")
    parser.add_argument("--turns", type=int, default=25)
    options = parser.parse_args()
    ways = [way for way in WAYS if not (options.without_opacus and way.startswith("Opacus"))]
    peak = apart(peak_speed, torch.get_num_threads()) / 1e9
    print(
        f"{torch.get_num_threads()} threads, {peak:.0f} GFLOP/s at most; {kernel_status().sentence}"
    )
    for name in options.shapes:
        table(name, ways, options.turns)


if __name__ == "__main__":
    main()
