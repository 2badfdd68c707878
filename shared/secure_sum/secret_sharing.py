"""Shamir's secret sharing of 32-byte secrets over the integers modulo 2^256 + 297, a prime.

Source: Shamir, "How to share a secret", CACM 1979. Fewer than `threshold` shares say nothing
about the secret: given them, every secret is equally likely.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache

from consilium.shared.crypto.keys import Entropy
from consilium.shared.errors import AuthenticationError

PRIME = 2**256 + 297
SECRET_BYTES = 32
SHARE_BYTES = 33

_STEPS = 16
"""Horner's steps between two reductions: points are small, so a step adds a byte or two."""


def split(
    secret: bytes, *, threshold: int, points: Sequence[int], entropy: Entropy
) -> dict[int, bytes]:
    """Deal one share per point; any `threshold` of them give the secret back.

    Args:
        secret: 32 bytes.
        threshold: shares needed, from 1 to the number of points.
        points: distinct whole numbers from 1 to 2^32, one a holder.
        entropy: source of the polynomial's coefficients; 48 bytes each, so that the remainder
            modulo the prime is within 2^-127 of uniform.

    Returns:
        The 33-byte big-endian share of each point.
    """
    if len(secret) != SECRET_BYTES or not 1 <= threshold <= len(points):
        raise ValueError(f"cannot deal {len(secret)} bytes to {len(points)} with {threshold}")
    if len(set(points)) != len(points) or not all(1 <= point <= 2**32 for point in points):
        raise ValueError("points are distinct whole numbers from 1 to 2^32")
    drawn = entropy(48 * (threshold - 1))
    randoms = [
        int.from_bytes(drawn[place : place + 48], "big") % PRIME
        for place in range(0, len(drawn), 48)
    ]
    falling = [*randoms, int.from_bytes(secret, "big")]
    return {point: _evaluate(falling, point).to_bytes(SHARE_BYTES, "big") for point in points}


def combine(shares: Mapping[int, bytes]) -> bytes:
    """Interpolate at zero from exactly `threshold` shares, given by point.

    Raises:
        AuthenticationError: a share is no element of the field, or the result is no 32-byte
            secret, so that a share is wrong.
    """
    points = tuple(sorted(shares))
    values = [read_share(shares[point]) for point in points]
    secret = sum(c * value for c, value in zip(_at_zero(points), values, strict=True)) % PRIME
    if secret >> 256:
        raise AuthenticationError("the shares given do not belong to one 32-byte secret")
    return secret.to_bytes(SECRET_BYTES, "big")


def read_share(share: bytes) -> int:
    """The field element that 33 bytes stand for.

    Raises:
        AuthenticationError: another length, or not below the prime.
    """
    value = int.from_bytes(share, "big")
    if len(share) != SHARE_BYTES or value >= PRIME:
        raise AuthenticationError(
            f"a secret share is not {SHARE_BYTES} bytes below the prime, so it was altered"
        )
    return value


def _evaluate(falling: Sequence[int], point: int) -> int:
    result = 0
    for first in range(0, len(falling), _STEPS):
        for coefficient in falling[first : first + _STEPS]:
            result = result * point + coefficient
        result %= PRIME
    return result


@lru_cache(maxsize=64)
def _at_zero(points: tuple[int, ...]) -> tuple[int, ...]:
    """Lagrange coefficients for the value at zero; a round needs the same few again and again."""
    coefficients = []
    for point in points:
        above, below = 1, 1
        for other in points:
            if other != point:
                above = above * other % PRIME
                below = below * (other - point) % PRIME
        coefficients.append(above * pow(below, -1, PRIME) % PRIME)
    return tuple(coefficients)
