"""How a round's cost grows with sites and parameters: laws fitted to measured rounds.

    python benchmarks/growth.py [--out docs]

Small rounds of the real protocol run, the coordinator in this process and all sites in another, and
for each the sites' bytes, the coordinator's processor time and its memory are taken; the files of
small simulated runs give the disk. Each law is a sum of a few terms with coefficients that are not
negative, fitted by least squares of relative errors. Sites n, neighbours k, parameters D.

Writes the tables of ``scale.md`` and ``images/scale.png`` under ``--out``. Takes about a minute on
a machine that does nothing else.
"""

import argparse
import multiprocessing
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from parts.round_parties import round_parties
from scipy.optimize import nnls

from consilium.client.secure_sum.masking import SiteMasking
from consilium.server.secure_sum.protocol import SecureSum
from consilium.shared.secure_sum.fixed_point import VectorSpec
from consilium.shared.secure_sum.mask_graph import COMPLETE_SITES, least_degree
from consilium.shared.secure_sum.messages import (
    Action,
    AgreeRequest,
    ChannelRequest,
    KeysRequest,
    UnmaskRequest,
    UpdateRequest,
)
from consilium.shared.study.definition import with_changes
from consilium.shared.wire.encoding import MAX_SITES, VECTOR_BYTES

MIB = 1 << 20
COLLUSION = 1
BEGIN, END = "<!-- made by benchmarks/growth.py -->", "<!-- until here -->"
POINTS = (  # sites, neighbours, parameters
    (5, 4, 10_000), (10, 9, 10_000), (20, 19, 10_000), (40, 39, 10_000),
    (30, 12, 10_000), (60, 20, 10_000), (60, 40, 10_000),
    (5, 4, 100_000), (20, 19, 100_000), (5, 4, 1_000_000), (10, 9, 1_000_000), (5, 4, 4_000_000),
)  # fmt: skip
SITES = (10, 100, 200, 1_000, 10_000)
SIZES = (10**4, 10**6, 10**8)


@dataclass(frozen=True, kw_only=True)
class Point:
    """A measured round in which nobody drops out."""

    sites: int
    neighbours: int
    size: int
    up: float
    down: float
    seconds: float
    memory: float


Term = Callable[[float, float, float], float]
TERMS: dict[str, Term] = {
    "1": lambda n, k, d: 1.0,  # noqa: ARG005
    "n": lambda n, k, d: n,  # noqa: ARG005
    "k": lambda n, k, d: k,  # noqa: ARG005
    "nk": lambda n, k, d: n * k,  # noqa: ARG005
    "D": lambda n, k, d: d,  # noqa: ARG005
    "nD": lambda n, k, d: n * d,  # noqa: ARG005
}
LAWS = {
    "up": ("bytes a site sends", ("1", "k", "D")),
    "down": ("bytes a site is sent", ("1", "n", "k", "D")),
    "seconds": ("processor seconds of the coordinator", ("1", "n", "nk", "nD")),
    "memory": ("bytes the coordinator holds at most", ("1", "n", "nk", "D")),
}


@dataclass(frozen=True)
class Law:
    """A sum of terms; ``error`` is the largest relative error at a measured point."""

    coefficients: Mapping[str, float]
    error: float

    def __call__(self, n: float, k: float, d: float) -> float:
        return sum(c * TERMS[name](n, k, d) for name, c in self.coefficients.items())

    def __str__(self) -> str:
        return " + ".join(
            f"{c:.3g}" if name == "1" else f"{c:.3g} {name}"
            for name, c in self.coefficients.items() if c > 0
        )  # fmt: skip


def fit(terms: Sequence[str], inputs: Sequence[tuple[float, ...]], found: Sequence[float]) -> Law:
    """Fit the terms' coefficients, none below 0, by least squares of relative errors."""
    values = np.array(found)
    rows = np.array([[TERMS[name](*one) for name in terms] for one in inputs])
    scale = rows.max(axis=0)
    weighted = rows / scale / values[:, None]
    solved, _ = nnls(weighted, np.ones(len(values)))
    law = dict(zip(terms, solved / scale, strict=True))
    errors = rows @ np.array(list(law.values())) / values - 1
    return Law(law, float(np.abs(errors).max()))


# Measuring the protocol.


class FarSites:
    """All sites in another process, so that this one's time and memory are the coordinator's."""

    def __init__(self, line: Connection, names: Sequence[str]) -> None:
        self._line, self._names = line, tuple(names)

    def names(self) -> tuple[str, ...]:
        return self._names

    def ask(
        self,
        action: Action,
        bodies: Mapping[str, bytes],
        *,
        timeout_s: float,  # noqa: ARG002 - nobody is late here
    ) -> Iterator[tuple[str, bytes]]:
        for site in bodies:
            self._line.send_bytes(f"{action.value} {site}".encode())
            self._line.send_bytes(bodies[site])
            yield site, self._line.recv_bytes()


def answer_for_all(line: Connection, maskings: Mapping[str, SiteMasking], spec: VectorSpec) -> None:
    """Answer as every site, until the line is closed; training takes no time."""
    vector = np.ones(spec.length, np.uint32)
    while True:
        try:
            action, site = line.recv_bytes().decode().split()
        except EOFError:
            return
        masking, body = maskings[site], line.recv_bytes()
        match Action(action):
            case Action.CHANNEL:
                reply = masking.channel_key(ChannelRequest.from_bytes(body)).to_bytes()
            case Action.KEYS:
                reply = masking.round_keys(KeysRequest.from_bytes(body)).to_bytes()
            case Action.AGREE:
                reply = masking.agree(AgreeRequest.from_bytes(body)).to_bytes()
            case Action.UNMASK:
                reply = masking.unmask(UnmaskRequest.from_bytes(body)).to_bytes()
            case Action.UPDATE:
                masking.begin(UpdateRequest.from_bytes(body))
                reply = masking.mask(vector, spec).to_bytes()
        line.send_bytes(reply)


def measure(sites: int, neighbours: int, size: int, folder: Path) -> Point:
    """Run three rounds: one to settle, one timed, one whose memory is traced."""
    parties = round_parties(sites, size, folder, degree=neighbours, collusion=COLLUSION)
    spec, maskings = parties.spec, parties.maskings
    here, there = multiprocessing.Pipe()
    far = multiprocessing.get_context("fork").Process(
        target=_serve, args=(here, there, maskings, spec), daemon=True
    )
    far.start()
    there.close()
    model = bytes(4 * size)
    coordinator = SecureSum(
        parties.agreed, FarSites(here, tuple(maskings)), timeout_s=1e9, threads=1
    )
    coordinator.open()
    coordinator.sum(round=1, spec=spec, model=model, configuration=b"")
    began = time.process_time()
    done = coordinator.sum(round=2, spec=spec, model=model, configuration=b"")
    seconds = time.process_time() - began
    del done.parts["update"]
    tracemalloc.start()
    coordinator.sum(round=3, spec=spec, model=model, configuration=b"")
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    here.close()
    far.join(10)
    return Point(
        sites=sites,
        neighbours=neighbours,
        size=size,
        up=float(np.mean(list(done.bytes_up.values()))),
        down=float(np.mean(list(done.bytes_down.values()))),
        seconds=seconds,
        memory=most + len(model),
    )


def _serve(
    here: Connection, there: Connection, maskings: Mapping[str, SiteMasking], spec: VectorSpec
) -> None:
    here.close()
    answer_for_all(there, maskings, spec)


# Measuring the disk.


def measure_disk(folder: Path) -> tuple[Law, Law]:
    """Run small studies; return the laws of the checkpoint (D) and of a round's records (n)."""
    from consilium.simulations.cohorts.study_cohorts import cohorts_for
    from consilium.simulations.federation.run import Federation
    from consilium.simulations.figures.held_out import HeldOut
    from consilium.simulations.runs.examples import example_study

    inputs: list[tuple[float, ...]] = []
    model: list[float] = []
    record: list[float] = []
    for sites, hidden in ((3, 8), (3, 64), (6, 8), (8, 128)):
        study = with_changes(
            example_study("demo"),
            study={"rounds": 2, "sites": [f"site{i}" for i in range(sites)]},
            model={"hidden": hidden},
        )
        place = folder / f"{sites}-{hidden}"
        cohorts = cohorts_for(study, None)
        federation = Federation(study, cohorts.sites, place, workers=1)
        test = HeldOut.read(cohorts.test, study)
        finished = federation.train(lambda _: None, test)
        weights = finished.state.server.weights_D.size
        held = sum(path.stat().st_size for path in place.iterdir() if path.is_file())
        told = len(repr(finished.history[1]).encode())
        inputs.append((sites, sites - 1, weights))
        record.append(told)
        model.append(held - sum(len(repr(one).encode()) for one in finished.history))
    return fit(("1", "D"), inputs, model), fit(("1", "n"), inputs, record)


# Showing.


def degree(sites: int) -> int:
    """Neighbours of a site in a study that leaves them to us."""
    return sites - 1 if sites <= COMPLETE_SITES else least_degree(sites, COLLUSION)


def size_text(count: float) -> str:
    """A number of bytes with a unit."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def number_text(value: float) -> str:
    """Three digits, or all before the point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def time_text(seconds: float) -> str:
    """Seconds, minutes or hours."""
    if seconds < 120:
        return f"{seconds:.2g} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def made(points: Sequence[Point], laws: Mapping[str, Law], disk: Law, record: Law) -> str:
    """The measured rounds, the laws, and what they say of many sites and large models."""
    lines = ["| for a round | law | largest error |", "|---|---|--:|"]
    for name, (told, _) in LAWS.items():
        lines.append(f"| {told} | {laws[name]} | {100 * laws[name].error:.0f} % |")
    lines.append(f"| bytes of a round's record | {record} | {100 * record.error:.0f} % |")
    lines.append(f"| bytes of the checkpoint | {disk} | {100 * disk.error:.0f} % |")
    lines += [
        "",
        "Measured, and by the law:",
        "",
        "| n | k | D | kB sent by a site | kB sent to it | coordinator, ms | holds, MB |",
        "|--:|--:|--:|--:|--:|--:|--:|",
    ]
    units = {"up": 1e-3, "down": 1e-3, "seconds": 1e3, "memory": 1e-6}
    for point in points:
        at = (point.sites, point.neighbours, point.size)
        told = [
            f"{number_text(unit * getattr(point, name))} ({number_text(unit * laws[name](*at))})"
            for name, unit in units.items()
        ]
        lines.append(f"| {at[0]} | {at[1]} | {at[2]:,} | {' | '.join(told)} |")
    lines += [
        "",
        "By the laws:",
        "",
        "| n | k | D | a site sends | is sent | into the coordinator | its processor | it holds "
        "| checkpoint |",
        "|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for sites in SITES:
        for size in SIZES:
            at = (sites, degree(sites), size)
            up = laws["up"](*at)
            lines.append(
                f"| {sites:,} | {at[1]} | {size:,} | {size_text(up)} "
                f"| {size_text(laws['down'](*at))} | {size_text(sites * up)} "
                f"| {time_text(laws['seconds'](*at))} | {size_text(laws['memory'](*at))} "
                f"| {size_text(disk(*at))} |"
            )
    return "\n".join(lines) + "\n"


def draw(points: Sequence[Point], laws: Mapping[str, Law], file: Path) -> None:
    """Draw measured points and laws: against sites for three models, and where it ends."""
    figure = Figure(figsize=(9.5, 6.6), layout="constrained")
    axes = figure.subplots(2, 2)
    sites = np.unique(np.geomspace(5, 10_000, 40).astype(int))
    graph = {n: degree(int(n)) for n in sites}
    colours = ("#0b5fa5", "#c4570a", "#3b7d23")
    for axis, (name, (told, _)) in zip(axes.flat, LAWS.items(), strict=True):
        law, scale = laws[name], 1.0 if name == "seconds" else 1e-6
        for size, colour in zip(SIZES, colours, strict=True):
            label = f"$10^{{{int(np.log10(size))}}}$ parameters"
            line = [scale * law(n, graph[n], size) for n in sites]
            axis.plot(sites, line, color=colour, label=label)
            complete = [p for p in points if p.size == size and p.neighbours == p.sites - 1]
            axis.plot([p.sites for p in complete],
                      [scale * getattr(p, name) for p in complete], "o", color=colour)  # fmt: skip
        axis.axvline(MAX_SITES, color="0.4", linestyle=":", linewidth=1)
        axis.set(xscale="log", yscale="log", title=told.replace("bytes", "MB"),
                 xlabel="sites")  # fmt: skip
        axis.grid(True, which="major", color="0.9")
    axes[0, 0].axhline(1e-6 * VECTOR_BYTES, color="0.4", linestyle="--", linewidth=1)
    axes[1, 0].legend(fontsize=8, loc="upper left")
    figure.savefig(file, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("docs"))
    options = parser.parse_args()
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108 - a private folder
    points = []
    with tempfile.TemporaryDirectory(dir=memory) as name:
        for number, (sites, neighbours, size) in enumerate(POINTS):
            (place := Path(name) / str(number)).mkdir()
            points.append(measure(sites, neighbours, size, place))
            one = points[-1]
            print(
                f"n = {sites:3d}, k = {neighbours:3d}, D = {size:9,}: up {one.up:11,.0f}  "
                f"down {one.down:11,.0f}  {one.seconds:7.3f} s  {one.memory / MIB:7.1f} MiB",
                flush=True,
            )
        disk, record = measure_disk(Path(name) / "runs")
    inputs = [(p.sites, p.neighbours, p.size) for p in points]
    laws = {
        name: fit(terms, inputs, [getattr(p, name) for p in points])
        for name, (_, terms) in LAWS.items()
    }
    page, written = options.out / "scale.md", made(points, laws, disk, record)
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    page.write_text(f"{before}{BEGIN}\n{written}{END}{rest.partition(END)[2]}", encoding="utf-8")
    draw(points, laws, options.out / "images" / "scale.png")
    print(written)


if __name__ == "__main__":
    main()
