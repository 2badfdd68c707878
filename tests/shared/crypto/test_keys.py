import copy
import os
import pickle

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from consilium.shared.crypto.keys import (
    ExchangeKey,
    IdentityKey,
    Roster,
    channel_key,
    derive,
    open_sealed,
    pair_seed,
    seal,
    seal_context,
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
        Roster((("a", bytes(32)), ("a", bytes([1]) * 32)))
    with pytest.raises(StudyError, match="same identity"):
        Roster((("a", bytes(32)), ("b", bytes(32))))
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
        channel_key(b"x" * 32, study_hash=b"s" * 32, sender="b", receiver="c"),
        pair_seed(b"x" * 32, context=b"s" * 32, low="b", high="c"),
        pair_seed(b"x" * 32, context=b"t" * 32, low="b", high="c"),
    ]
    assert len(set(keys)) == len(keys)
    assert all(len(key) == 32 for key in keys)
    assert channel_key(b"x" * 32, study_hash=b"s" * 32, sender="a", receiver="b") == keys[0]


@given(st.binary(max_size=60), st.binary(max_size=60), st.data())
@settings(max_examples=60)
def test_a_seal_opens_unaltered_under_its_own_context_only(message, about, data):
    key, nonce = os.urandom(32), os.urandom(12)
    box = seal(key, message, about=about, nonce=nonce)
    assert open_sealed(key, box, about=about, what="the box") == message
    place = data.draw(st.integers(0, len(box) - 1))
    altered = box[:place] + bytes([box[place] ^ data.draw(st.integers(1, 255))]) + box[place + 1 :]
    for wrong_key, wrong_box, wrong_about in (
        (key, altered, about),
        (key, box[:-1], about),
        (key, b"", about),
        (os.urandom(32), box, about),
        (key, box, about + b"."),
    ):
        with pytest.raises(AuthenticationError, match="the box does not open"):
            open_sealed(wrong_key, wrong_box, about=wrong_about, what="the box")


def test_the_context_of_a_seal_tells_everything_apart():
    base = {
        "study_hash": b"h" * 32,
        "round": 1,
        "sender": "a",
        "receiver": "b",
        "context": b"c" * 32,
    }
    variants = [
        seal_context("seed", **base),
        seal_context("mask", **base),
        seal_context("seed", **{**base, "study_hash": b"i" * 32}),
        seal_context("seed", **{**base, "round": 2}),
        seal_context("seed", **{**base, "sender": "b", "receiver": "a"}),
        seal_context("seed", **{**base, "context": b""}),
    ]
    assert len(set(variants)) == len(variants)
