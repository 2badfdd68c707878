"""Flower's SecAgg+: its own client functions, and what its workflow computes at the coordinator.

A site's time is what `secaggplus_mod` computes in its four stages for one client: Flower's own
functions are called as the mod calls them, but without its storing of state in records. The
coordinator's time is what `SecAggPlusWorkflow` computes on the replies in its last two stages: the
same calls in the same order, without messages. Shares go to all sites, as in our complete graph. If
a step is to be repeated more than `LIMIT` times, so many are timed and the rest is extrapolated.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from flwr.app import ConfigRecord
from flwr.client.mod.secure_aggregation.secaggplus_mod import (
    SecAggPlusState,
    _collect_masked_vectors,
    _setup,
    _share_keys,
    _unmask,
)
from flwr.common import bytes_to_ndarray, ndarrays_to_parameters
from flwr.common.secure_aggregation.crypto.shamir import combine_shares, create_shares
from flwr.common.secure_aggregation.crypto.symmetric_encryption import (
    encrypt,
    generate_shared_key,
)
from flwr.common.secure_aggregation.ndarrays_arithmetic import (
    factor_extract,
    get_parameters_shape,
    parameters_addition,
    parameters_mod,
    parameters_subtraction,
)
from flwr.common.secure_aggregation.quantization import dequantize
from flwr.common.secure_aggregation.secaggplus_constants import Key
from flwr.common.secure_aggregation.secaggplus_utils import (
    pseudo_rand_gen,
    share_keys_plaintext_concat,
)
from flwr.supercore.primitives.asymmetric import (
    bytes_to_private_key,
    bytes_to_public_key,
    generate_key_pairs,
    private_key_to_bytes,
    public_key_to_bytes,
)
from numpy.typing import NDArray

LIMIT = 40
MODULUS, CLIPPING, TARGET, MAX_WEIGHT = 1 << 32, 3.0, 1 << 22, 1000
ME = 1

Clock = Callable[[], float]
Vectors = list[NDArray[np.int64]]


@dataclass(frozen=True)
class Measured:
    """One size's figures; `extrapolated` if not every mask or secret was really handled."""

    site_ms: float
    coordinator_s: float
    coordinator_dropped_s: float
    upload_bytes: int
    extrapolated: bool


def measure(sites: int, size: int, repeat: int, clock: Clock) -> Measured:
    """Time one site, and the coordinator with none and with a fifth of the sites dropped."""
    runs = [_site(sites, size, clock) for _ in range(repeat)]
    masked = runs[-1][1]
    own_secret = os.urandom(32)
    private, _ = generate_key_pairs()
    coordinator = [
        _coordinator(masked, own_secret, private_key_to_bytes(private), sites, dropped, clock)
        for dropped in (0, sites // 5)
    ]
    return Measured(
        site_ms=min(seconds for seconds, _ in runs) * 1e3,
        coordinator_s=coordinator[0],
        coordinator_dropped_s=coordinator[1],
        upload_bytes=len(masked[1]),
        extrapolated=sites > LIMIT or sites // 5 * (sites - 1) > LIMIT,
    )


def _site(sites: int, size: int, clock: Clock) -> tuple[float, list[bytes]]:
    """Return seconds of one client's four stages, and its masked vector; peers are not timed."""
    peers = range(ME + 1, sites + 1)
    keys = {peer: (generate_key_pairs(), generate_key_pairs()) for peer in peers}
    threshold = 2 * sites // 3 + 1
    update = [np.clip(np.random.default_rng(0).normal(0, 0.2, size), -1, 1)]
    trained = ndarrays_to_parameters(update)
    state = SecAggPlusState(nid=ME)
    setup = ConfigRecord(
        {
            Key.SAMPLE_NUMBER: sites,
            Key.SHARE_NUMBER: sites,
            Key.THRESHOLD: threshold,
            Key.CLIPPING_RANGE: CLIPPING,
            Key.TARGET_RANGE: TARGET,
            Key.MOD_RANGE: MODULUS,
            Key.MAX_WEIGHT: MAX_WEIGHT,
        }
    )
    start = clock()
    _setup(state, setup)
    spent = clock() - start
    publics = {ME: [state.pk1, state.pk2]} | {
        peer: [public_key_to_bytes(pair[1]) for pair in pairs] for peer, pairs in keys.items()
    }
    announced = ConfigRecord({str(site): pair for site, pair in publics.items()})
    start = clock()
    _share_keys(state, announced)
    spent += clock() - start
    share, key_share = _one_share(os.urandom(32)), _one_share(state.sk1)
    boxes = [
        encrypt(state.ss2_dict[peer], share_keys_plaintext_concat(peer, ME, share, key_share))
        for peer in peers
    ]
    sealed = ConfigRecord({Key.CIPHERTEXT_LIST: boxes, Key.SOURCE_LIST: list(peers)})
    start = clock()
    masked = _collect_masked_vectors(state, sealed, 500, trained)[Key.MASKED_PARAMETERS]
    asked = ConfigRecord({Key.ACTIVE_NODE_ID_LIST: [ME, *peers], Key.DEAD_NODE_ID_LIST: []})
    _unmask(state, asked)
    return spent + clock() - start, masked


def _one_share(secret: bytes) -> bytes:
    return create_shares(secret, 2, 2)[0]


def _coordinator(
    masked: list[bytes], seed: bytes, key: bytes, sites: int, dropped: int, clock: Clock
) -> float:
    """Return the coordinator's seconds with so many sites dropped before their upload."""
    alive, threshold = sites - dropped, 2 * sites // 3 + 1
    total, spent = _added(masked, alive, clock)
    seed_shares = create_shares(seed, threshold, sites)[:alive]
    spent += alive * _each(alive, clock, lambda: combine_shares(seed_shares))
    shape = get_parameters_shape(total)
    spent += alive * _each(alive, clock, lambda: _unmasked(total, seed, shape))
    if dropped:
        key_shares = create_shares(key, threshold, sites)[:alive]
        spent += dropped * _each(dropped, clock, lambda: combine_shares(key_shares))
        public = public_key_to_bytes(generate_key_pairs()[1])
        pairs = dropped * (sites - 1)
        spent += pairs * _each(pairs, clock, lambda: _unpaired(total, key, public, shape))
    start = clock()
    _, whole = factor_extract(parameters_mod(total, MODULUS))
    for vector in dequantize(whole, CLIPPING, TARGET):
        vector += -(alive - 1) * CLIPPING
        vector *= 1.0
    return spent + clock() - start


def _added(masked: list[bytes], alive: int, clock: Clock) -> tuple[Vectors, float]:
    timed = min(alive, LIMIT)
    start = clock()
    total = [bytes_to_ndarray(part) for part in masked]
    for _ in range(timed - 1):
        total = parameters_addition(total, [bytes_to_ndarray(part) for part in masked])
    return parameters_mod(total, MODULUS), (clock() - start) / timed * alive


def _unmasked(total: Vectors, seed: bytes, shape: list[tuple[int, ...]]) -> Vectors:
    return parameters_subtraction(total, pseudo_rand_gen(seed, MODULUS, shape))


def _unpaired(total: Vectors, key: bytes, public: bytes, shape: list[tuple[int, ...]]) -> Vectors:
    shared = generate_shared_key(bytes_to_private_key(key), bytes_to_public_key(public))
    return parameters_addition(total, pseudo_rand_gen(shared, MODULUS, shape))


def _each(count: int, clock: Clock, step: Callable[[], object]) -> float:
    """Return mean seconds of a step to be repeated `count` times, from at most `LIMIT` of them."""
    timed = min(count, LIMIT)
    start = clock()
    for _ in range(timed):
        step()
    return (clock() - start) / timed
