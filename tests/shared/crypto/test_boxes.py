import os
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consilium.shared.crypto.boxes import BOX_OVERHEAD, BoxKeys, BoxUse, open_box, seal_box
from consilium.shared.crypto.keys import ExchangeKey
from consilium.shared.errors import AuthenticationError

USE = BoxUse(kind="seed", study_hash=b"h" * 32, round=1, dealer="a", holder="b", context=b"c" * 32)
OTHER_USES = [
    replace(USE, kind="mask"),
    replace(USE, study_hash=b"i" * 32),
    replace(USE, round=2),
    replace(USE, dealer="b", holder="a"),
    replace(USE, dealer="c"),
    replace(USE, holder="c"),
    replace(USE, context=b"d" * 32),
]


@given(st.binary(max_size=60), st.data())
@settings(max_examples=40)
def test_a_box_opens_unaltered_under_its_own_key_and_use_only(message, data):
    own = ExchangeKey(os.urandom(32))
    box = seal_box(message, to=own.public, use=USE, ephemeral=ExchangeKey(os.urandom(32)))
    assert len(box) == len(message) + BOX_OVERHEAD
    assert open_box(own, box, use=USE) == message
    place = data.draw(st.integers(0, len(box) - 1))
    altered = box[:place] + bytes([box[place] ^ data.draw(st.integers(1, 127))]) + box[place + 1 :]
    for key, wrong in (
        (ExchangeKey(os.urandom(32)), box),
        (own, altered),
        (own, box[:-1]),
        (own, bytes(32) + box[32:]),
        (own, b""),
    ):
        with pytest.raises(AuthenticationError, match="the seed box from a for round 1 does not"):
            open_box(key, wrong, use=USE)


@pytest.mark.parametrize("other", OTHER_USES)
def test_a_box_opens_for_no_other_use(other):
    own = ExchangeKey(os.urandom(32))
    box = seal_box(b"share", to=own.public, use=USE, ephemeral=ExchangeKey(os.urandom(32)))
    with pytest.raises(AuthenticationError, match="does not open"):
        open_box(own, box, use=other)


def test_no_two_boxes_of_a_dealing_share_a_key():
    own, ephemeral = ExchangeKey(os.urandom(32)), ExchangeKey(os.urandom(32))
    uses = [replace(USE, holder=holder) for holder in "vwxyz"]
    boxes = [seal_box(b"share", to=own.public, use=use, ephemeral=ephemeral) for use in uses]
    assert {box[:32] for box in boxes} == {ephemeral.public}
    assert len({box[32:] for box in boxes}) == 5
    keys = {ExchangeKey(os.urandom(32)).public for _ in range(5)}
    assert len({seal_box(b"share", to=to, use=USE, ephemeral=ephemeral)[32:] for to in keys}) == 5


def test_nothing_is_sealed_for_a_point_of_low_order():
    with pytest.raises(AuthenticationError, match="low-order"):
        seal_box(b"share", to=bytes(32), use=USE, ephemeral=ExchangeKey(os.urandom(32)))


def test_a_holder_has_another_key_for_each_dealer_and_dealing():
    keys, again = BoxKeys(bytes(32)), BoxKeys(bytes(32))
    assert keys.public("a") == again.public("a") == ExchangeKey(keys.secret("a")).public
    assert len({keys.public("a"), keys.public("b"), BoxKeys(b"1" * 32).public("a")}) == 3
