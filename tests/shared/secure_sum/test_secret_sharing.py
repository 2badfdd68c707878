import os
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consilium.shared.crypto.keystream import Keystream
from consilium.shared.errors import AuthenticationError
from consilium.shared.secure_sum.secret_sharing import (
    PRIME,
    SHARE_BYTES,
    combine,
    read_share,
    split,
)


@st.composite
def dealings(draw):
    points = draw(st.lists(st.integers(1, 2**32), min_size=1, max_size=9, unique=True))
    return draw(st.binary(min_size=32, max_size=32)), draw(st.integers(1, len(points))), points


@given(dealings(), st.randoms())
def test_any_threshold_of_the_shares_gives_the_secret_back(dealing, random):
    secret, threshold, points = dealing
    shares = split(secret, threshold=threshold, points=points, entropy=os.urandom)
    chosen = random.sample(points, threshold)
    assert combine({point: shares[point] for point in chosen}) == secret


@pytest.mark.parametrize("secret", [bytes(32), b"\xff" * 32])
def test_the_smallest_and_largest_secret_survive(secret):
    shares = split(secret, threshold=3, points=range(1, 6), entropy=os.urandom)
    for chosen in combinations(shares, 3):
        assert combine({point: shares[point] for point in chosen}) == secret


@given(st.binary(min_size=32, max_size=32), st.integers(0, PRIME - 1))
@settings(max_examples=50)
def test_one_share_too_few_fits_every_secret(other, value):
    """For any t - 1 shares and any secret there is a polynomial: nothing is revealed."""
    secret = bytes(range(32))
    shares = split(secret, threshold=3, points=(1, 2, 3), entropy=os.urandom)
    known = {point: int.from_bytes(shares[point], "big") for point in (1, 2)}
    # the third share that would make the secret `other`: interpolate at 3 through 0, 1 and 2
    zero = int.from_bytes(other, "big")
    third = (zero - 3 * known[1] + 3 * known[2]) % PRIME
    forged = {**{p: shares[p] for p in (1, 2)}, 3: third.to_bytes(SHARE_BYTES, "big")}
    assert combine(forged) == other


def test_shares_are_spread_over_the_whole_field():
    tops, source = [0] * 8, Keystream(b"shares".ljust(32, b"-"))  # the same draws each time
    for _ in range(4000):
        share = split(bytes(32), threshold=2, points=(1, 2), entropy=source.bytes)[1]
        tops[int.from_bytes(share, "big") * 8 // PRIME] += 1
    chi_square = sum((count - 500) ** 2 / 500 for count in tops)
    assert chi_square < 7 + 6 * (2 * 7) ** 0.5


def test_an_altered_share_gives_another_secret_or_none():
    shares = split(bytes(32), threshold=2, points=(1, 2), entropy=os.urandom)
    outcomes = set()
    for value in (0, PRIME - 1, PRIME // 2, PRIME // 3):
        try:
            outcomes.add(combine({1: shares[1], 2: value.to_bytes(SHARE_BYTES, "big")}))
        except AuthenticationError as error:
            assert "do not belong to one" in str(error)  # noqa: PT017 - either outcome is right
    assert bytes(32) not in outcomes


def test_shares_of_no_32_byte_secret_are_refused():
    above = (2**256 + 5).to_bytes(SHARE_BYTES, "big")
    with pytest.raises(AuthenticationError, match="do not belong to one 32-byte secret"):
        combine({7: above})


@pytest.mark.parametrize(
    "share", [b"", bytes(32), bytes(34), PRIME.to_bytes(33, "big"), b"\xff" * 33]
)
def test_bytes_that_are_no_field_element_are_refused(share):
    with pytest.raises(AuthenticationError, match="not 33 bytes below the prime"):
        read_share(share)


@pytest.mark.parametrize(
    ("secret", "threshold", "points"),
    [
        (bytes(31), 1, (1,)),
        (bytes(32), 0, (1,)),
        (bytes(32), 3, (1, 2)),
        (bytes(32), 1, (0, 1)),
        (bytes(32), 1, (1, 1)),
        (bytes(32), 1, (2**32 + 1,)),
    ],
)
def test_an_impossible_dealing_is_a_defect(secret, threshold, points):
    with pytest.raises(ValueError):
        split(secret, threshold=threshold, points=points, entropy=os.urandom)


def test_the_modulus_is_prime():
    """Strong probable prime to the first 24 prime bases."""
    odd, twos = PRIME - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    for base in (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73):
        x = pow(base, odd, PRIME)
        powers = [pow(x, 2**i, PRIME) for i in range(twos)]
        assert x == 1 or PRIME - 1 in powers
