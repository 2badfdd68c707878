"""The secure sum beside Flower's SecAgg+ primitives and TenSEAL's CKKS, in one run.

    python benchmarks/secure_sum.py [--sites 5 10 30 100] [--sizes 100000 1000000] [--repeat 3]

Ours is the real protocol at both ends in one process, bytes in between, malicious profile: a
site's time is all it computes in a steady round except training (checking the request, encoding,
masking, packing, agreement, shares, the next round's keys); the coordinator's is all the rest.
The sites' journals are in memory; what the durable claim adds on this disk is printed at the end.
With ``--cpu`` processor time is taken, one thread each, which is steadier on a busy machine.
SecAgg+ is timed by calling its own functions in the order its client and workflow call them;
where it would remove more than `LIMIT` masks, that many are timed and the rest is extrapolated
(marked ~). SecAgg+ and CKKS are measured for comparison only and are never part of the product.
"""

import argparse
import importlib.util
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR
from flwr.common import bytes_to_ndarray, ndarray_to_bytes
from flwr.common.secure_aggregation.crypto.shamir import combine_shares, create_shares
from flwr.common.secure_aggregation.crypto.symmetric_encryption import (
    decrypt,
    encrypt,
    generate_shared_key,
)
from flwr.common.secure_aggregation.ndarrays_arithmetic import (
    factor_combine,
    factor_extract,
    parameters_addition,
    parameters_mod,
    parameters_multiply,
)
from flwr.common.secure_aggregation.quantization import dequantize, quantize
from flwr.common.secure_aggregation.secaggplus_utils import pseudo_rand_gen
from flwr.supercore.primitives.asymmetric import generate_key_pairs, private_key_to_bytes
from numpy.typing import NDArray

from client.journal import RoundJournal
from client.masking import SiteMasking
from server.secure_sum import SecureSum
from shared.fixed_point import Segment, VectorSpec, encode, largest_scale
from shared.keys import IdentityKey, Roster
from shared.masks import Keystream
from shared.messages import (
    Action,
    AgreeRequest,
    ChannelRequest,
    KeysRequest,
    UnmaskRequest,
    UpdateRequest,
)
from shared.sum_parameters import SumParameters

Floats = NDArray[np.floating]

LIMIT = 60
MODEL = b"\0\0\0\0"
TARGETS = {
    "site": {5: 1 / 6, 10: 1 / 6, 100: 1 / 15},
    "coordinator": {5: 1 / 8, 10: 1 / 15, 100: 1 / 100},
    "floor": {10: 2.3, 100: 1.5},
}


Clock = Callable[[], float]


@dataclass
class Watch:
    """How time is taken, and with how many threads."""

    clock: Clock
    threads: int


@dataclass
class Row:
    sites: int
    size: int
    site_ms: float = 0.0
    mask_ms: float = 0.0
    floor_ms: float = 0.0
    coordinator_s: float = 0.0
    coordinator_dropped_s: float = 0.0
    upload: float = 0.0
    secagg_site_ms: float = 0.0
    secagg_coordinator_s: float = 0.0
    secagg_coordinator_dropped_s: float = 0.0
    secagg_upload: float = 0.0
    extrapolated: bool = False


class TimedSites:
    """Sites in this process; their time is kept apart from the coordinator's."""

    def __init__(
        self,
        maskings: Mapping[str, SiteMasking],
        update: Floats,
        spec: VectorSpec,
        clock: Clock,
    ) -> None:
        self.maskings, self.update, self.spec, self.clock = maskings, update, spec, clock
        self.down: frozenset[str] = frozenset()
        self.site_s = self.mask_s = 0.0
        self.uploaded = 0

    def names(self) -> tuple[str, ...]:
        return tuple(self.maskings)

    def ask(
        self,
        action: Action,
        bodies: Mapping[str, bytes],
        *,
        timeout_s: float,  # noqa: ARG002 - nobody is late here
    ) -> Iterator[tuple[str, bytes]]:
        for site in bodies:
            body = bodies[site]
            if site in self.down:
                continue
            start = self.clock()
            reply = self.answer(self.maskings[site], action, body)
            self.site_s += self.clock() - start
            yield site, reply

    def answer(self, masking: SiteMasking, action: Action, body: bytes) -> bytes:
        match action:
            case Action.CHANNEL:
                return masking.channel_key(ChannelRequest.from_bytes(body)).to_bytes()
            case Action.KEYS:
                return masking.round_keys(KeysRequest.from_bytes(body)).to_bytes()
            case Action.AGREE:
                return masking.agree(AgreeRequest.from_bytes(body)).to_bytes()
            case Action.UNMASK:
                return masking.unmask(UnmaskRequest.from_bytes(body)).to_bytes()
        masking.begin(UpdateRequest.from_bytes(body))
        vector = encode({"update": self.update}, self.spec, Keystream(os.urandom(32)))
        start = self.clock()
        reply = masking.mask(vector, 100, self.spec).to_bytes()
        self.mask_s += self.clock() - start
        self.uploaded = len(reply)
        return reply


def ours(row: Row, repeat: int, folder: Path, watch: Watch, bits: int = 32) -> None:
    sites, size = row.sites, row.size
    identities = {f"site-{i:03d}": IdentityKey.generate() for i in range(sites)}
    threshold = 2 * sites // 3 + 1
    agreed = SumParameters(
        study_digest=os.urandom(32),
        run_id=os.urandom(16),
        roster=Roster(tuple((site, key.public) for site, key in identities.items())),
        threshold=threshold,
        minimum_sites=max(threshold, 3),
        collusion=1 if sites > 3 else 0,
        degree=sites - 1,
        profile="malicious",
        max_weight=10_000,
    )
    scale = largest_scale(1.0, sites=sites, ring_bits=bits)
    segment = Segment(name="update", length=size, linf=1.0, scale=scale)
    spec = VectorSpec(ring_bits=bits, segments=(segment,))
    update = np.clip(np.random.default_rng(0).normal(0, 0.2, size), -1, 1).astype(np.float32)
    maskings = {
        site: SiteMasking(site, key, agreed, RoundJournal(folder / site), threads=watch.threads)
        for site, key in identities.items()
    }
    timed = TimedSites(maskings, update, spec, watch.clock)
    coordinator = SecureSum(agreed, timed, timeout_s=1e9, threads=watch.threads)
    coordinator.open()
    best: dict[str, float] = {}
    for number in range(1, repeat + 1):
        step(coordinator, timed, number, best)
    lost = frozenset(list(maskings)[sites - sites // 5 :])
    for number in range(repeat + 1, 2 * repeat + 1):
        step(coordinator, timed, 2 * number, best, lost)
    row.site_ms, row.mask_ms = best["site"] * 1e3, best["mask"] * 1e3
    row.coordinator_s, row.coordinator_dropped_s = best["coordinator"], best["dropped coordinator"]
    row.upload = timed.uploaded / (4 * size)


def step(
    coordinator: SecureSum,
    timed: TimedSites,
    number: int,
    best: dict[str, float],
    lost: frozenset[str] = frozenset(),
) -> None:
    """One round's times; the least of each kind is kept."""
    timed.down = frozenset()
    if lost:  # all have keys of the round, and then a fifth of the sites fails before its update
        coordinator.open(round=number)
        timed.down = lost
    prefix, survivors = "dropped " if lost else "", len(timed.maskings) - len(lost)
    timed.site_s = timed.mask_s = 0.0
    clock = timed.clock
    start = clock()
    result = coordinator.sum(round=number, spec=timed.spec, model=MODEL, configuration=b"")
    whole = clock() - start
    if len(result.survivors) != survivors:
        raise RuntimeError(f"{len(result.survivors)} of {survivors} sites in the sum")
    measured = {
        "site": timed.site_s / survivors,
        "mask": timed.mask_s / survivors,
        "coordinator": whole - timed.site_s,
    }
    for name, seconds in measured.items():
        key = prefix + name
        best[key] = min(best.get(key, seconds), seconds)


def claim_ms() -> float:
    """Median wall time of a journal's claim in the current folder."""
    with tempfile.TemporaryDirectory(dir=".") as name:
        journal = RoundJournal(Path(name) / "journal")
        times = []
        for number in range(1, 16):
            start = time.perf_counter()
            journal.claim(bytes(32), number)
            times.append(time.perf_counter() - start)
    return float(np.median(times)) * 1e3


def floor_ms(row: Row, repeat: int, watch: Watch) -> float:
    """AES-256-CTR keystream alone: as many streams as a site has masks, nothing added."""
    zeros = memoryview(bytes(1 << 18))
    room = memoryview(bytearray(1 << 18))
    clock = watch.clock
    best = float("inf")
    for _ in range(repeat):
        start = clock()
        for _ in range(row.sites):
            encryptor = Cipher(AES(bytes(32)), CTR(bytes(16))).encryptor()
            for first in range(0, 4 * row.size, 1 << 18):
                part = min(1 << 18, 4 * row.size - first)
                encryptor.update_into(zeros[:part], room)
        best = min(best, clock() - start)
    return best * 1e3 / (watch.threads if row.size * row.sites >= 1 << 21 else 1)


def secagg(row: Row, repeat: int, clock: Clock) -> None:
    """Flower's SecAgg+ with one share and one mask for every site."""
    sites, threshold = row.sites, 2 * row.sites // 3 + 1
    update = [np.clip(np.random.default_rng(0).normal(0, 0.2, row.size), -1, 1)]
    best = float("inf")
    for _ in range(repeat):
        start = clock()
        masked, shares = secagg_site(update, sites, threshold)
        best = min(best, clock() - start)
    row.secagg_site_ms = best * 1e3
    row.secagg_upload = len(masked[1]) / (4 * row.size)
    start = clock()
    total = [bytes_to_ndarray(part) for part in masked]
    for _ in range(min(sites, 10) - 1):
        total = parameters_addition(total, [bytes_to_ndarray(part) for part in masked])
    adding = (clock() - start) / min(sites, 10) * sites
    start = clock()
    _, whole = factor_extract(parameters_mod(total, 1 << 32))
    dequantize(whole, 3.0, 1 << 22)
    decoding = clock() - start
    start = clock()
    combine_shares(shares[:threshold])
    combining = (clock() - start) * sites
    dropped = sites // 5
    left = sites - dropped
    plain, extra = (
        secagg_removal(total, sites, clock),
        secagg_removal(total, left + dropped * (sites - 1), clock),
    )
    row.secagg_coordinator_s = adding + combining + plain + decoding
    row.secagg_coordinator_dropped_s = adding * left / sites + combining + extra + decoding
    row.extrapolated = left + dropped * (sites - 1) > LIMIT


def secagg_site(
    update: list[Floats], sites: int, threshold: int
) -> tuple[list[bytes], list[bytes]]:
    """What its client computes: set-up, sharing of two secrets, masking."""
    (sk1, pk1), (sk2, pk2) = generate_key_pairs(), generate_key_pairs()
    seed = os.urandom(32)
    shares = create_shares(seed, threshold, sites)
    key_shares = create_shares(private_key_to_bytes(sk1), threshold, sites)
    boxes = []
    for place in range(1, sites):
        key = generate_shared_key(sk2, pk2)
        boxes.append((key, encrypt(key, shares[place] + key_shares[place])))
    for key, box in boxes:
        decrypt(key, box)
    modulus = 1 << 32
    quantized = quantize(parameters_multiply(update, 0.5), 3.0, 1 << 22)
    vector = factor_combine(1 << 10, quantized)
    dimensions = [array.shape for array in vector]
    vector = parameters_addition(vector, pseudo_rand_gen(seed, modulus, dimensions))
    for _ in range(1, sites):
        mask = pseudo_rand_gen(generate_shared_key(sk1, pk1), modulus, dimensions)
        vector = parameters_addition(vector, mask)
    vector = parameters_mod(vector, modulus)
    return [ndarray_to_bytes(array) for array in vector], shares


def secagg_removal(total: list[NDArray[np.int64]], masks: int, clock: Clock) -> float:
    """Seconds for taking that many masks off."""
    timed = min(masks, LIMIT)
    dimensions = [array.shape for array in total]
    start = clock()
    for _ in range(timed):
        total = parameters_addition(total, pseudo_rand_gen(os.urandom(32), 1 << 32, dimensions))
    return (clock() - start) / timed * masks


def ckks(size: int, clock: Clock) -> tuple[float, float]:
    """TenSEAL: milliseconds to encrypt and serialise one update, and its size over float32."""
    import tenseal

    context = tenseal.context(
        tenseal.SCHEME_TYPE.CKKS, poly_modulus_degree=8192, coeff_mod_bit_sizes=[60, 40, 40, 60]
    )
    context.global_scale = 2.0**40
    values = np.random.default_rng(0).normal(0, 0.2, size)
    start = clock()
    pieces = [values[i : i + 4096].tolist() for i in range(0, size, 4096)]
    sealed = [tenseal.ckks_vector(context, piece).serialize() for piece in pieces]
    spent = clock() - start
    return spent * 1e3, sum(map(len, sealed)) / (4 * size)


def verdict(value: float, target: float | None) -> str:
    if target is None:
        return ""
    return " ok" if value <= target else f" MISSED (target {target:.3g})"


def show(row: Row) -> None:
    mark = "~" if row.extrapolated else ""
    site = row.site_ms / row.secagg_site_ms
    dropped = row.coordinator_dropped_s / row.secagg_coordinator_dropped_s
    floor = row.mask_ms / row.floor_ms
    print(f"n = {row.sites}, d = {row.size:,}")
    print(
        f"  site          {row.site_ms:9.1f} ms   SecAgg+ {row.secagg_site_ms:9.1f} ms   "
        f"1/{1 / site:.1f}{verdict(site, TARGETS['site'].get(row.sites))}"
    )
    print(
        f"  mask + upload {row.mask_ms:9.1f} ms   AES-CTR floor {row.floor_ms:.1f} ms   "
        f"{floor:.2f}x{verdict(floor, TARGETS['floor'].get(row.sites))}"
    )
    print(
        f"  coordinator   {row.coordinator_s:9.3f} s    SecAgg+ {row.secagg_coordinator_s:9.3f} s"
        f"    1/{row.secagg_coordinator_s / row.coordinator_s:.1f}   (none dropped)"
    )
    print(
        f"  coordinator   {row.coordinator_dropped_s:9.3f} s    SecAgg+ "
        f"{row.secagg_coordinator_dropped_s:9.3f} s{mark}   1/{1 / dropped:.1f}"
        f"{verdict(dropped, TARGETS['coordinator'].get(row.sites))}   (20 % dropped)"
    )
    limit = 1.01 if row.size >= 1_000_000 else None
    print(
        f"  upload / float32  {row.upload:.3f}{verdict(row.upload, limit)}   "
        f"SecAgg+ {row.secagg_upload:.3f}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sites", type=int, nargs="+", default=[5, 10, 30, 100])
    parser.add_argument("--sizes", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--cpu", action="store_true", help="processor time, one thread each")
    options = parser.parse_args()
    watch = Watch(time.perf_counter, len(os.sched_getaffinity(0)))
    if options.cpu:
        watch = Watch(time.process_time, 1)
    ten_ms = {}
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108 - a private folder
    with tempfile.TemporaryDirectory(dir=memory) as name:
        for size in options.sizes:
            for sites in options.sites:
                row = Row(sites, size)
                folder = Path(name) / f"{sites}-{size}"
                folder.mkdir()
                ours(row, options.repeat, folder, watch)
                row.floor_ms = floor_ms(row, options.repeat, watch)
                secagg(row, 1 if sites >= 30 else options.repeat, watch.clock)
                show(row)
                if sites == 10:
                    ten_ms[size] = row.site_ms
            small = Row(10, size)
            folder = Path(name) / f"24-{size}"
            folder.mkdir()
            ours(small, 1, folder, watch, bits=24)
            limit = 0.76 if size >= 1_000_000 else None
            print(
                f"24-bit ring, n = 10, d = {size:,}: upload / float32 {small.upload:.3f}"
                f"{verdict(small.upload, limit)}"
            )
    print(
        f"a durable claim of a round takes {claim_ms():.1f} ms on this disk, once a site and round"
    )
    if importlib.util.find_spec("tenseal") is None:
        print("TenSEAL is not installed, so CKKS is left out; `pip install tenseal` to compare.")
        return
    for size in options.sizes:
        spent, ratio = ckks(size, watch.clock)
        line = f"CKKS (N = 8192), d = {size:,}: encrypt {spent:.0f} ms, {ratio:.1f}x the bytes"
        if size in ten_ms:
            times = spent / ten_ms[size]
            line += f"; our site at n = 10 is {times:.0f}x faster{verdict(-times, -50)}"
        print(line)


if __name__ == "__main__":
    main()
