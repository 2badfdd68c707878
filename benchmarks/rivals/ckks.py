"""TenSEAL's CKKS at its usual setting: all sites share one key, so any site could leak it."""

from collections.abc import Callable

import numpy as np


def encrypt_ms(size: int, clock: Callable[[], float]) -> tuple[float, float]:
    """Return milliseconds to encrypt and serialise one update, and its bytes / float32's."""
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
