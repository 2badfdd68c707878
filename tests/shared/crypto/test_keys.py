import copy
import os
import pickle

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from consilium.shared.crypto.keys import (
    ExchangeKey,
    IdentityKey,
    Roster,
    check_identity,
    derive,
    is_low_order,
    pair_seed,
)
from consilium.shared.errors import AuthenticationError, SettingsError, StudyError

KEY = IdentityKey.from_seed(bytes(range(32)))


def roster(*sites):
    keys = [IdentityKey.from_seed(site.encode().ljust(32, b".")) for site in sites]
    return Roster(tuple((site, key.public) for site, key in zip(sites, keys, strict=True)))


def test_an_identity_survives_its_pem_file():
    again = IdentityKey.from_pem(KEY.to_pem())
    assert again.public == KEY.public
    assert again.sign(b"x") == KEY.sign(b"x")


@pytest.mark.parametrize(
    "pem",
    [
        b"",
        b"not a key",
        X25519PrivateKey.generate().private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
        IdentityKey.generate()._private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        ),
    ],
)
def test_a_file_that_is_no_plain_ed25519_key_is_refused(pem):
    with pytest.raises(SettingsError, match="not an unencrypted Ed25519 key"):
        IdentityKey.from_pem(pem)


@pytest.mark.parametrize("secret", [KEY, ExchangeKey(bytes(32))])
def test_secret_objects_print_pickle_and_copy_nothing(secret):
    assert repr(secret) == str(secret) == f"<{type(secret).__name__}, secret>"
    for attempt in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="never pickled or copied"):
            attempt(secret)


def test_a_roster_knows_its_sites_in_order():
    members = roster("b", "a", "c")
    assert members.names == tuple(members) == ("b", "a", "c")
    assert len(members) == 3
    assert members.position("a") == 1
    assert "c" in members
    assert "d" not in members


@pytest.mark.parametrize("site", ["", "a b", "-a", "é", "a" * 65, "a\n", "../a"])
def test_malformed_site_names_are_refused(site):
    with pytest.raises(StudyError, match="site name"):
        Roster(((site, KEY.public),))


def test_double_sites_double_identities_and_short_identities_are_refused():
    with pytest.raises(StudyError, match="same name"):
        Roster((("a", KEY.public), ("a", IdentityKey.generate().public)))
    with pytest.raises(StudyError, match="same identity"):
        Roster((("a", KEY.public), ("b", KEY.public)))
    with pytest.raises(StudyError, match="31 bytes, not 32"):
        Roster((("a", bytes(31)),))


def test_signatures_verify_for_their_site_and_statement_only():
    members = Roster((("me", KEY.public), ("you", IdentityKey.generate().public)))
    signature = KEY.sign(b"statement")
    members.verify("me", b"statement", signature, "a note")
    for site, statement, given_signature in (
        ("you", b"statement", signature),
        ("me", b"another", signature),
        ("me", b"statement", bytes(64)),
        ("me", b"statement", b"short"),
    ):
        with pytest.raises(AuthenticationError, match=f"a note of site {site} does not verify"):
            members.verify(site, statement, given_signature, "a note")
    with pytest.raises(AuthenticationError, match="'nobody' is not one of the 2"):
        members.verify("nobody", b"statement", signature, "a note")


def test_both_ends_of_an_exchange_share_a_secret():
    one, two = ExchangeKey(os.urandom(32)), ExchangeKey(os.urandom(32))
    assert one.shared_secret(two.public) == two.shared_secret(one.public)


P = 2**255 - 19
D = -121665 * pow(121666, -1, P) % P
ORDER = 2**252 + 27742317777372353535851937790883648493


def root_of(square):
    """A square root modulo P, or None."""
    root = pow(square, (P + 3) // 8, P)
    if root * root % P != square:
        root = root * pow(2, (P - 1) // 4, P) % P
    return root if root * root % P == square else None


def added(one, other):
    """The sum of two points of Ed25519, as RFC 8032 section 5.1.4 has it."""
    (x1, y1), (x2, y2) = one, other
    k = D * x1 * x2 * y1 * y2 % P
    x = (x1 * y2 + x2 * y1) * pow(1 + k, -1, P) % P
    return x, (y1 * y2 + x1 * x2) * pow(1 - k, -1, P) % P


def small_order_points():
    """All eight: multiples of ORDER of points found by trial."""
    points, y = set(), 2
    while len(points) < 8:
        x = root_of((y * y - 1) * pow(D * y * y + 1, -1, P) % P)
        if x is not None:
            power, point = ORDER, (x, y)
            total = (0, 1)
            while power:
                if power & 1:
                    total = added(total, point)
                point, power = added(point, point), power >> 1
            multiple = total
            for _ in range(8):
                points.add(multiple)
                multiple = added(multiple, total)
        y += 1
    return sorted(points)


def encodings(y):
    """Every 32 bytes that stand for that y, with either sign, canonical or not."""
    return [
        (value | sign << 255).to_bytes(32, "little")
        for value in (y, y + P)
        if value < 2**255
        for sign in (0, 1)
    ]


@pytest.mark.parametrize("point", small_order_points(), ids=range(8))
def test_an_identity_of_low_order_is_no_identity(point):
    for encoded in encodings(point[1]):
        with pytest.raises(StudyError, match="for which anybody can sign"):
            check_identity(encoded, "the identity")
        with pytest.raises(StudyError, match="the roster's identity of b is a point of low order"):
            Roster((("a", KEY.public), ("b", encoded)))


@pytest.mark.parametrize("y", range(19))
def test_a_second_encoding_of_an_identity_is_refused(y):
    for encoded in encodings(y)[2:]:
        with pytest.raises(StudyError, match="not in the one form"):
            check_identity(encoded, "the identity")


@given(st.binary(min_size=32, max_size=32))
def test_every_key_that_a_site_makes_is_an_identity(seed):
    check_identity(IdentityKey.from_seed(seed).public, "the identity")


def test_why_an_identity_of_low_order_must_be_refused():
    """Under the point of order one, the signature (R = identity, S = 0) fits every statement."""
    neutral = b"\x01" + bytes(31)
    key = Ed25519PublicKey.from_public_bytes(neutral)
    for statement in (b"one", b"another"):
        key.verify(neutral + bytes(32), statement)


def test_signatures_are_checked_strictly():
    """A signature whose S is not below the group's order is another form of one, and refused."""
    members = Roster((("me", KEY.public),))
    signature = KEY.sign(b"statement")
    scalar = int.from_bytes(signature[32:], "little")
    for wrong in (scalar + ORDER, scalar + 2 * ORDER, ORDER, 0):
        other = signature[:32] + wrong.to_bytes(32, "little")
        with pytest.raises(AuthenticationError, match="does not verify"):
            members.verify("me", b"statement", other, "a note")


X25519_LOW = [0, 1, P - 1, P, P + 1, *(
    325606250916557431795983626356110631294008115727848805560023387167927233504,
    39382357235489614581723060781553021112529911719440698176882885853963445705823,
)]  # fmt: skip


@pytest.mark.parametrize("u", X25519_LOW)
@pytest.mark.parametrize("top", [0, 1])
def test_every_encoding_of_a_low_order_point_is_known_as_one(u, top):
    point = (u | top << 255).to_bytes(32, "little")
    assert is_low_order(point)
    with pytest.raises(AuthenticationError, match="low-order"):
        ExchangeKey(bytes(range(32))).shared_secret(point)


@given(st.binary(min_size=32, max_size=32))
def test_a_key_that_a_site_makes_is_not_of_low_order(seed):
    assert not is_low_order(ExchangeKey(seed).public)


@pytest.mark.parametrize("u", range(2, 19))
def test_other_second_encodings_are_keys_like_any_other(u):
    """From P + 2 on they are second encodings of points of high order."""
    assert not is_low_order((P + u).to_bytes(32, "little"))


@pytest.mark.parametrize("point", [bytes(32), b"\x01" + bytes(31), b"short"])
def test_low_order_and_malformed_points_are_refused(point):
    with pytest.raises(AuthenticationError, match="low-order"):
        ExchangeKey(bytes(range(32))).shared_secret(point)


def test_derived_keys_differ_in_every_input():
    base = {"salt": b"s" * 32, "label": "chan", "parts": ("a", "b")}
    keys = [
        derive(b"x" * 32, **base),
        derive(b"y" * 32, **base),
        derive(b"x" * 32, **{**base, "salt": b"t" * 32}),
        derive(b"x" * 32, **{**base, "label": "pair"}),
        derive(b"x" * 32, **{**base, "parts": ("b", "a")}),
        derive(b"x" * 32, **{**base, "parts": ("ab", "")}),
        pair_seed(b"x" * 32, context=b"s" * 32, low="b", high="c"),
        pair_seed(b"x" * 32, context=b"t" * 32, low="b", high="c"),
    ]
    assert len(set(keys)) == len(keys)
    assert all(len(key) == 32 for key in keys)
