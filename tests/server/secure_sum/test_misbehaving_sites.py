"""A site that breaks the protocol is named and left out, or the round is void; no sum is wrong."""

import gc
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from consilium.client.secure_sum.letters import Member
from consilium.server.secure_sum.exchange import Outgoing, RoundLog
from consilium.server.secure_sum.protocol import SecureSum
from consilium.shared.crypto.keys import ExchangeKey
from consilium.shared.errors import EncodingError, RoundVoidError
from consilium.shared.secure_sum.messages import (
    Action,
    Agreement,
    ChannelKey,
    MaskedUpdate,
    Refusal,
    RoundKeys,
    Unmasked,
    UpdateRequest,
)
from consilium.shared.secure_sum.packing import pack, unpack
from consilium.shared.secure_sum.tail import TAIL
from consilium.shared.wire.encoding import MAX_ROUND
from tests.in_process import LOST, SPEC, federation, names, plain_sum, run_round

LIAR, OTHER = names(5)[1], names(5)[2]
ANOTHER = ExchangeKey(bytes(range(32))).public
KINDS = {
    Action.CHANNEL: ChannelKey,
    Action.KEYS: RoundKeys,
    Action.UPDATE: MaskedUpdate,
    Action.AGREE: Agreement,
    Action.UNMASK: Unmasked,
}


def lying(sites, action, change):
    """Let the liar's reply to that action be changed before it arrives."""

    def alter(site, asked, reply):
        if (site, asked) == (LIAR, action):
            return change(KINDS[action].from_bytes(reply)).to_bytes()
        return reply

    sites.alter = alter


def flip(data, place=-1):
    return data[:place] + bytes([data[place] ^ 1]) + (data[place + 1 :] if place != -1 else b"")


def run_with_lie(tmp_path, action, change, **changes):
    coordinator, sites = federation(5, tmp_path, **changes)
    lying(sites, action, change)
    coordinator.open()
    result = run_round(coordinator, 1)
    assert (result.ring_total == plain_sum(sites, result.survivors, 1)).all()
    return result


def second(coordinator, sites):
    """The liar is welcome again once it keeps to the protocol."""
    sites.alter = lambda site, action, reply: reply
    assert run_round(coordinator, 2).survivors == sites.names()


def other_key(keys):
    return replace(keys, public=ANOTHER)


def other_channel(key):
    return replace(key, keys={**key.keys, OTHER: ANOTHER})


def other_letter(keys, **changes):
    return replace(keys, letters={**keys.letters, OTHER: replace(keys.letters[OTHER], **changes)})


@pytest.mark.parametrize(
    ("action", "change", "reason"),
    [
        (Action.CHANNEL, other_channel, "channel key of site .* does not verify"),
        (Action.CHANNEL, lambda key: replace(key, keys={}), "not for exactly the site's circle"),
        (Action.CHANNEL, lambda key: replace(key, site=OTHER), f"it is from site {OTHER}"),
        (Action.KEYS, other_key, "round keys of site .* does not verify"),
        (Action.KEYS, lambda keys: replace(keys, round=2), "for round 2"),
        (Action.KEYS, lambda keys: replace(keys, letters={}), "not dealt to exactly"),
        *(
            (Action.KEYS, change, "round keys of site .* does not verify")
            for change in (
                lambda keys: other_letter(keys, commitment=bytes(32)),
                lambda keys: other_letter(keys, box=bytes(81)),
                lambda keys: other_letter(keys, mask_key=ANOTHER),
                lambda keys: other_letter(keys, seed_key=ANOTHER),
                lambda keys: replace(keys, own_commitment=bytes(32)),
            )
        ),
        (Action.UPDATE, lambda update: replace(update, round=2), "another round, model"),
        (Action.UPDATE, lambda update: replace(update, context=bytes(32)), "another round, model"),
        (Action.UPDATE, lambda update: replace(update, boxes={}), "not shared with"),
        *(
            (Action.UPDATE, change, "self mask's shares of site .* does not verify")
            for change in (
                lambda update: replace(update, commitment=bytes(32)),
                lambda update: replace(update, own_commitment=bytes(32)),
                lambda update: replace(
                    update,
                    boxes={**update.boxes, OTHER: replace(update.boxes[OTHER], box=bytes(81))},
                ),
            )
        ),
        (
            Action.UPDATE,
            lambda update: replace(update, packed=update.packed[:-4]),
            "a packed vector has 128 bytes, and 33 elements of 32 bits take 132",
        ),
        (
            Action.UPDATE,
            lambda update: replace(update, packed=bytes(3 << 20)),
            "a message has .* bytes, and at most",
        ),
        (
            Action.UPDATE,
            lambda update: ChannelKey(site=LIAR, keys={}, signature=bytes(64)),
            "expected a masked-update message and got one named 'channel-key'",
        ),
        (
            Action.UPDATE,
            lambda update: Refusal(site=LIAR, code="PolicyError", sentence="not today"),
            "not today",
        ),
    ],
)
def test_a_site_that_breaks_the_protocol_before_its_update_is_dropped_and_named(
    tmp_path, action, change, reason
):
    result = run_with_lie(tmp_path, action, change)
    assert result.dropped == (LIAR,)
    assert list(result.refusals) == [LIAR]
    assert re.search(reason, result.refusals[LIAR])


@pytest.mark.parametrize(
    ("action", "change", "reason"),
    [
        (
            Action.AGREE,
            lambda reply: replace(reply, signature=flip(reply.signature)),
            "the survivors of site .* does not verify",
        ),
        (
            Action.UNMASK,
            lambda reply: replace(
                reply, self_mask_shares={**reply.self_mask_shares, OTHER: bytes(33)}
            ),
            f"revealed of {OTHER} does not match the commitment",
        ),
        (
            Action.UNMASK,
            lambda reply: replace(reply, self_mask_shares={"nobody": bytes(33)}),
            "revealed of nobody does not match",
        ),
        (
            Action.UNMASK,
            lambda reply: replace(reply, seed_shares={OTHER: bytes(33)}),
            f"revealed of {OTHER} does not match the commitment",
        ),
        (
            Action.UNMASK,
            lambda reply: replace(reply, seed_shares={"nobody": bytes(33)}),
            "revealed of nobody does not match",
        ),
        (
            Action.UNMASK,
            lambda reply: replace(reply, next_keys=other_key(reply.next_keys)),
            "round keys of site .* does not verify",
        ),
    ],
)
def test_a_site_that_breaks_the_protocol_after_its_update_is_named_and_the_sum_stands(
    tmp_path, action, change, reason
):
    result = run_with_lie(tmp_path, action, change)
    assert result.dropped == ()
    assert list(result.refusals) == [LIAR]
    assert re.search(reason, result.refusals[LIAR])


def test_a_wrong_share_of_a_dropped_sites_key_is_left_out_and_its_sender_named(tmp_path):
    coordinator, sites = federation(6, tmp_path, threshold=4, minimum_sites=4)
    lying(
        sites,
        Action.UNMASK,
        lambda reply: replace(reply, seed_shares={s: bytes(33) for s in reply.seed_shares}),
    )
    sites.faults = {(names(6)[-1], Action.UPDATE): LOST}
    coordinator.open()
    result = run_round(coordinator, 1)
    assert (result.ring_total == plain_sum(sites, result.survivors, 1)).all()
    assert f"revealed of {names(6)[-1]} does not match" in result.refusals[LIAR]


def test_too_few_true_shares_void_the_round(tmp_path):
    coordinator, sites = federation(3, tmp_path)
    lying(sites, Action.UNMASK, lambda reply: replace(reply, self_mask_shares={}))
    coordinator.open()
    with pytest.raises(RoundVoidError, match="2 sites revealed their share of the self mask"):
        run_round(coordinator, 1)
    second(coordinator, sites)


@contextmanager
def misdealing(change) -> Iterator[None]:
    """Let the liar deal other shares than its secret's, with honest commitments to them."""
    shares = Member.shares

    def deal(self, secret, holders):
        if self.site == LIAR:
            return change(shares, self, secret, holders)
        return shares(self, secret, holders)

    Member.shares = deal
    try:
        yield
    finally:
        Member.shares = shares


def another_secret(shares, me, secret, holders):
    return shares(me, flip(secret), holders)


def no_secret(shares, me, secret, holders):
    """Shares whose interpolation is no 32-byte number."""
    return {holder: (2**256 + 100).to_bytes(33, "big") for holder in holders}


def goes_on_without_the_liar(coordinator, sites, round):
    result = run_round(coordinator, round)
    assert result.dropped == (LIAR,)
    assert list(result.refusals) == [LIAR]
    assert "taken out of this run" in result.refusals[LIAR]
    assert (result.ring_total == plain_sum(sites, result.survivors, round)).all()


@pytest.mark.parametrize("change", [another_secret, no_secret])
def test_a_self_mask_shared_wrongly_voids_one_round_and_its_dealer_is_out(tmp_path, change):
    coordinator, sites = federation(5, tmp_path)
    coordinator.open()
    with (
        misdealing(change),
        pytest.raises(RoundVoidError, match=f"{LIAR} dealt of its self mask are wrong"),
    ):
        run_round(coordinator, 1)
    goes_on_without_the_liar(coordinator, sites, 2)
    goes_on_without_the_liar(coordinator, sites, 3)


@pytest.mark.parametrize("change", [another_secret, no_secret])
def test_a_round_key_shared_wrongly_voids_the_round_in_which_its_dealer_drops(tmp_path, change):
    coordinator, sites = federation(5, tmp_path)
    coordinator.open()
    with misdealing(change):
        coordinator._keys.collect(3, RoundLog(clock=lambda: 0.0), rejoin_timeout_s=1.0)
    sites.faults = {(LIAR, Action.UPDATE): LOST}
    with pytest.raises(RoundVoidError, match=f"{LIAR} dealt of its round key are wrong"):
        run_round(coordinator, 3)
    sites.faults = {}
    goes_on_without_the_liar(coordinator, sites, 4)


def test_an_update_masked_otherwise_voids_the_round_by_its_tail(tmp_path):
    coordinator, sites = federation(5, tmp_path)

    def shift(update):
        vector = unpack(update.packed, SPEC.length + TAIL, 32).copy()
        vector[-1] += 1
        return replace(update, packed=pack(vector, 32))

    lying(sites, Action.UPDATE, shift)
    coordinator.open()
    with pytest.raises(RoundVoidError, match="check coordinates are wrong"):
        run_round(coordinator, 1)
    second(coordinator, sites)


def test_sites_shown_another_model_are_left_out(tmp_path):
    """Model inconsistency (Pasquini et al. 2022) by a coordinator's relay, seen at the sum."""
    coordinator, sites = federation(5, tmp_path)
    coordinator.open()

    def swap(site, action, body):
        if (site, action) == (LIAR, Action.UPDATE):
            return replace(UpdateRequest.from_bytes(body), model=b"another model!!!").to_bytes()
        return body

    sites.alter_request = swap
    result = run_round(coordinator, 1)
    assert result.dropped == (LIAR,)
    assert "another round, model, configuration or layout" in result.refusals[LIAR]


def test_bytes_that_are_no_message_count_as_a_dropout(tmp_path):
    coordinator, sites = federation(5, tmp_path)
    coordinator.open()
    sites.alter = lambda site, action, reply: b"\xc1garbage" if site == LIAR else reply
    result = run_round(coordinator, 1)
    assert result.dropped == (LIAR,)
    assert "not a well-formed message" in result.refusals[LIAR]


def test_a_second_answer_and_an_answer_nobody_asked_for_are_ignored(tmp_path):
    coordinator, sites = federation(4, tmp_path)
    once = sites.ask

    def twice(action, bodies, *, timeout_s):
        for site, reply in once(action, bodies, timeout_s=timeout_s):
            yield site, reply
            yield site, reply
            yield "stranger", reply

    sites.ask = twice
    coordinator.open()
    result = run_round(coordinator, 1)
    assert (result.ring_total == plain_sum(sites, sites.names(), 1)).all()
    assert result.refusals == {}


@pytest.mark.parametrize("round", [0, -1, MAX_ROUND + 1])
def test_an_impossible_round_number_is_refused(tmp_path, round):
    coordinator, _ = federation(3, tmp_path)
    with pytest.raises(RoundVoidError, match="is not between 1 and"):
        run_round(coordinator, round)


def test_a_layout_the_sites_do_not_have_gives_no_sum(tmp_path):
    coordinator, _ = federation(3, tmp_path)
    coordinator.open()
    other = replace(SPEC, ring_bits=28)
    with pytest.raises(RoundVoidError, match="another round, model, configuration or layout"):
        run_round(coordinator, 1, other)


def test_the_coordinator_keeps_no_sites_vector(tmp_path):
    """While the updates come in, the bytes it holds for each site do not grow with the vector."""
    coordinator, sites = federation(4, tmp_path)
    coordinator.open()
    arrived = []

    def watch(site, action, reply):
        if action is Action.UPDATE:
            arrived.append(MaskedUpdate.from_bytes(reply).context)
        if action is Action.AGREE:
            held = [thing for thing in gc.get_objects() if isinstance(thing, MaskedUpdate)]
            packed = [update.packed for update in held if update.context in arrived]
            assert packed == [b""] * 4
        return reply

    sites.alter = watch
    run_round(coordinator, 1)
    assert len(arrived) == 4


def test_only_the_training_phase_waits_as_long_as_training_may_take(tmp_path):
    coordinator, sites = federation(4, tmp_path)
    own = SecureSum(
        coordinator.parameters,
        sites,
        timeout_s=900.0,
        exchange_timeout_s=30.0,
        rejoin_timeout_s=2.0,
        threads=1,
    )
    waited = []
    ask = sites.ask

    def note(action, bodies, *, timeout_s):
        waited.append((action.value, timeout_s))
        return ask(action, bodies, timeout_s=timeout_s)

    sites.ask = note
    sites.faults = {(LIAR, Action.UPDATE): LOST}
    own.open()
    run_round(own, 1)
    run_round(own, 2)
    steady = [("update", 900.0), ("agree", 30.0), ("unmask", 30.0)]
    first = [("channel", 30.0), ("keys", 30.0)]
    back = [("channel", 2.0), ("channel", 2.0), ("keys", 30.0)]  # who was away, then the others
    assert waited == [*first, *steady, *back, *steady]


def test_a_request_is_encoded_when_it_is_sent_and_counted():
    message = Refusal(site="a", code="b", sentence="c")
    outgoing = Outgoing({"a": message, "b": message})
    assert (len(outgoing), list(outgoing), outgoing.sizes) == (2, ["a", "b"], {})
    assert outgoing["b"] == message.to_bytes()
    assert outgoing.sizes == {"b": len(message.to_bytes())}


def test_threads_and_waiting_times_have_defaults(tmp_path):
    coordinator, sites = federation(3, tmp_path)
    own = SecureSum(coordinator.parameters, sites, timeout_s=600.0)
    assert (own._exchange_timeout_s, own._rejoin_timeout_s) == (60.0, 15.0)
    assert own._threads >= 1
    with pytest.raises(EncodingError):
        own.sum(round=1, spec=replace(SPEC, ring_bits=16), model=b"", configuration=b"")
