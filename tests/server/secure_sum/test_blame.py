"""Who lies is named and nobody else, and the sums go on: seven sites, one of them the liar.

The lies are those of a site that follows its own rules but for one: what it sends is signed by it.
"""

import pytest

from consilium.client.secure_sum import letters, masking
from consilium.client.secure_sum.letters import leaf_of
from consilium.shared.crypto import hash_tree, transcript
from consilium.shared.crypto.keys import ExchangeKey
from consilium.shared.errors import RoundVoidError
from consilium.shared.secure_sum.messages import Action, ChannelKey, MaskedUpdate, Unmasked
from tests.in_process import changed, federation, names, plain_sum, run_round

SEVEN = names(7)  # t = M = 5
LIAR, VICTIM, OTHER = SEVEN[1], SEVEN[0], SEVEN[5]
ROUNDS = (1, 2, 3, 4, 5)
SEVENTH = (7).to_bytes(33, "big")
LOW = [bytes(32), b"\x01" + bytes(31), (2**255 - 19).to_bytes(32, "little"), b"\xff" * 32]
LOW[3] = (2**255 - 18 + 2**255).to_bytes(32, "little")  # one, written as no library does


def play(tmp_path, void=()):
    """Five rounds; in every one the liar, and nobody else, is named, and all sums are right."""
    coordinator, sites = federation(7, tmp_path)
    return follow(coordinator, sites, void)


def follow(coordinator, sites, void=()):
    results = {}
    named = set(coordinator.open().refusals)
    for round in ROUNDS:
        if round in void:
            with pytest.raises(RoundVoidError, match=LIAR) as caught:
                run_round(coordinator, round)
            assert not [s for s in SEVEN if s != LIAR and f"{s}: " in str(caught.value)]
            continue
        result = run_round(coordinator, round)
        assert (result.ring_total == plain_sum(sites, result.survivors, round)).all()
        named |= set(result.refusals)
        results[round] = result
    assert named == {LIAR}
    return results


def lie_in_keys(monkeypatch, change):
    """Let the liar say something else in its round keys, signed as if it were true."""
    true = masking.deal_keys

    def deal(me, round, to):
        dealt = true(me, round, to)
        if me.site == LIAR:
            keys = change(dealt.message)
            leaves = {me.site: transcript.own_leaf(me.site, keys.own_commitment)}
            leaves |= {h: leaf_of(letter, h, to[h]) for h, letter in keys.letters.items()}
            root = hash_tree.root([leaves[name] for name in sorted(leaves)])
            statement = transcript.keys_statement(
                me.parameters.study_hash, round, me.site, keys.public, root
            )
            signature = me.identity.sign(statement)
            dealt.message = type(keys).from_bytes(changed(keys, signature=signature))
        return dealt

    monkeypatch.setattr(masking, "deal_keys", deal)


def lie_in_channel_keys(monkeypatch, change):
    true = masking.announce

    def announce(me, keys):
        told = true(me, keys)
        if me.site != LIAR:
            return told
        publics = change(dict(told.keys))
        leaves = [transcript.channel_leaf(peer, publics[peer]) for peer in sorted(publics)]
        statement = transcript.channel_statement(
            me.parameters.study_hash, me.site, hash_tree.root(leaves)
        )
        return ChannelKey(site=me.site, keys=publics, signature=me.identity.sign(statement))

    monkeypatch.setattr(masking, "announce", announce)


def seal_otherwise(monkeypatch, kind, victims, share=SEVENTH):
    """Let the liar commit to true shares, and seal another to the victims."""
    true = letters.seal_box

    def seal(message, *, to, use, ephemeral):
        if use.dealer == LIAR and use.kind == kind and use.holder in victims:
            return bytes(81) if share is None else true(share, to=to, use=use, ephemeral=ephemeral)
        return true(message, to=to, use=use, ephemeral=ephemeral)

    monkeypatch.setattr(letters, "seal_box", seal)


def other_letter(keys, **changes):
    spoilt = type(keys.letters[OTHER]).from_bytes(changed(keys.letters[OTHER], **changes))
    return type(keys).from_bytes(changed(keys, letters={**keys.letters, OTHER: spoilt}))


@pytest.mark.parametrize("point", LOW, ids=["zero", "one", "p", "p + 1, top bit"])
def test_a_low_order_round_key_names_its_sender_and_voids_nothing(tmp_path, monkeypatch, point):
    lie_in_keys(monkeypatch, lambda keys: type(keys).from_bytes(changed(keys, public=point)))
    results = play(tmp_path)
    assert all(result.dropped == (LIAR,) for result in results.values())
    assert all("low-order point" in result.refusals[LIAR] for result in results.values())


@pytest.mark.parametrize("field", ["mask_key", "seed_key"])
def test_a_low_order_key_for_boxes_names_its_sender(tmp_path, monkeypatch, field):
    lie_in_keys(monkeypatch, lambda keys: other_letter(keys, **{field: LOW[3]}))
    results = play(tmp_path)
    assert all(result.dropped == (LIAR,) for result in results.values())
    assert all("low-order point" in result.refusals[LIAR] for result in results.values())


def test_a_low_order_channel_key_names_its_sender(tmp_path, monkeypatch):
    lie_in_channel_keys(monkeypatch, lambda keys: {**keys, OTHER: bytes(32)})
    results = play(tmp_path)
    assert all(result.dropped == (LIAR,) for result in results.values())
    assert all("low-order point" in result.refusals[LIAR] for result in results.values())


def test_a_copied_channel_key_names_the_copier(tmp_path, monkeypatch):
    coordinator, sites = federation(7, tmp_path)
    seen = {}

    def look(site, action, reply):
        if (site, action) == (VICTIM, Action.CHANNEL):
            seen["key"] = ChannelKey.from_bytes(reply).keys[LIAR]
        return reply

    sites.alter = look
    lie_in_channel_keys(monkeypatch, lambda keys: {**keys, OTHER: seen["key"]})
    results = follow(coordinator, sites)
    assert all(result.dropped == (LIAR,) for result in results.values())
    for round in (1, 2):  # later it is nobody's, and the copier cannot open what is sealed to it
        assert f"copy of one that {VICTIM} announced before" in results[round].refusals[LIAR]


@pytest.mark.parametrize("which", ["round key", "key for boxes"])
def test_a_copied_key_of_the_round_names_the_copier(tmp_path, monkeypatch, which):
    """The liar sees the victim's key when it is shown to all, and announces it as its next."""
    coordinator, sites = federation(7, tmp_path)
    seen = {"key": ExchangeKey(bytes(range(32))).public}
    honest = {"first": True}

    def look(site, action, reply):
        if (site, action) == (VICTIM, Action.UNMASK):
            seen["key"] = Unmasked.from_bytes(reply).next_keys.public
        return reply

    def copy(keys):
        if honest.pop("first", False):
            return keys
        if which == "round key":
            return type(keys).from_bytes(changed(keys, public=seen["key"]))
        return other_letter(keys, mask_key=seen["key"])

    sites.alter = look
    lie_in_keys(monkeypatch, copy)
    results = follow(coordinator, sites)
    assert results[1].dropped == ()
    assert all(results[round].dropped == (LIAR,) for round in ROUNDS[1:])
    assert f"copy of one that {VICTIM} announced before" in results[1].refusals[LIAR]


@pytest.mark.sampled(3)
@pytest.mark.parametrize("victims", [SEVEN[:1], [SEVEN[0], SEVEN[5]], SEVEN], ids=len)
@pytest.mark.parametrize("share", [None, SEVENTH], ids=["rubbish", "another share"])
def test_wrong_seed_shares_name_their_dealer_at_once(tmp_path, monkeypatch, victims, share):
    seal_otherwise(monkeypatch, "seed", victims, share)
    results = play(tmp_path)
    assert results[1].dropped == ()
    assert "shows the key that opens the box" in results[1].refusals[LIAR]
    assert all(results[round].dropped == (LIAR,) for round in ROUNDS[1:])
    assert "taken out of this run" in results[2].refusals[LIAR]


@pytest.mark.parametrize("share", [None, SEVENTH], ids=["rubbish", "another share"])
def test_wrong_mask_shares_for_few_do_not_stop_the_sum(tmp_path, monkeypatch, share):
    seal_otherwise(monkeypatch, "mask", [SEVEN[0], SEVEN[5]], share)
    results = play(tmp_path)
    assert results[1].dropped == ()
    assert "shows the key that opens the box" in results[1].refusals[LIAR]
    assert all(results[round].dropped == (LIAR,) for round in ROUNDS[1:])


def test_wrong_mask_shares_for_all_void_one_round_that_names_their_dealer(tmp_path, monkeypatch):
    seal_otherwise(monkeypatch, "mask", SEVEN)
    results = play(tmp_path, void={1})
    assert all(results[round].dropped == (LIAR,) for round in ROUNDS[1:])


@pytest.mark.parametrize("key", ["own", "true"])
@pytest.mark.parametrize("action", [Action.UPDATE, Action.UNMASK])
def test_a_complaint_that_proves_nothing_names_who_complains(tmp_path, action, key):
    coordinator, sites = federation(7, tmp_path)
    kind = {Action.UPDATE: MaskedUpdate, Action.UNMASK: Unmasked}[action]
    witness = {}

    def note(site, asked, body):
        state = sites.sites[LIAR].masking
        if (site, asked) == (LIAR, Action.UPDATE):
            witness[Action.UPDATE] = state._next.opens.secret(VICTIM)
        if (site, asked) == (LIAR, Action.UNMASK):
            witness[Action.UNMASK] = state._round.masks.secret(VICTIM)
        return body

    def complain(site, asked, reply):
        if (site, asked) == (LIAR, action):
            shown = witness[action] if key == "true" else bytes(range(32))
            return changed(kind.from_bytes(reply), complaints={VICTIM: shown})
        return reply

    sites.alter_request, sites.alter = note, complain
    results = follow(coordinator, sites)
    assert all(result.dropped == () for result in results.values())
    said = "that is as committed to" if key == "true" else "with a key it never announced"
    assert all(said in result.refusals[LIAR] for result in results.values())


@pytest.mark.parametrize("action", [Action.UPDATE, Action.UNMASK])
def test_a_complaint_of_a_site_that_dealt_nothing_names_who_complains(tmp_path, action):
    coordinator, sites = federation(7, tmp_path)
    kind = {Action.UPDATE: MaskedUpdate, Action.UNMASK: Unmasked}[action]

    def complain(site, asked, reply):
        if (site, asked) == (LIAR, action):
            return changed(
                kind.from_bytes(reply), complaints={"nobody": bytes(32), LIAR: bytes(32)}
            )
        return reply

    sites.alter = complain
    results = follow(coordinator, sites)
    assert all("which dealt it nothing" in result.refusals[LIAR] for result in results.values())
