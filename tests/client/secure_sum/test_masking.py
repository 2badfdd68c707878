import copy
import logging
import os
import pickle
import re
from dataclasses import replace

import numpy as np
import pytest

from consilium.client.secure_sum.letters import leaf_of
from consilium.client.secure_sum.masking import SiteMasking
from consilium.shared.crypto import hash_tree, transcript
from consilium.shared.crypto.boxes import seal_box
from consilium.shared.crypto.keys import ExchangeKey, IdentityKey
from consilium.shared.errors import AuthenticationError, EncodingError, ProtocolError, StudyError
from consilium.shared.secure_sum.dealt_shares import judge, seed_use
from consilium.shared.secure_sum.fixed_point import Segment, VectorSpec
from consilium.shared.secure_sum.messages import (
    Action,
    ChannelRequest,
    Delivered,
    KeysRequest,
    MaskBox,
    MaskedUpdate,
    PeerKey,
    SignedKey,
    UnmaskRequest,
    declared_sizes,
)
from consilium.shared.wire.encoding import MAX_ROUND
from tests.adversary import part_of, reachable
from tests.in_process import (
    CONFIGURATION,
    MODEL,
    SPEC,
    federation,
    halted,
    identities,
    names,
    parameters,
    run_round,
)

ME, PEER, LAST = names(5)[0], names(5)[1], names(5)[-1]
ZEROS = np.zeros(SPEC.length, np.uint32)
ANOTHER = ExchangeKey(bytes(range(32))).public


def masked(tmp_path, **changes):
    """A site about to be asked to unmask a round of five, and the honest request."""
    return halted(5, tmp_path, Action.UNMASK, **changes)


def sign_survivors(context, survivors, signers):
    statement = transcript.survivors_statement(context, survivors)
    keys = identities(5)
    return {signer: keys[signer].sign(statement) for signer in signers}


# Setting up


def test_a_site_outside_the_roster_or_under_another_identity_is_refused(tmp_path):
    site, _, _ = halted(3, tmp_path, Action.CHANNEL)
    for name, key in (("nowhere", identities(3)[ME]), (ME, IdentityKey.generate())):
        with pytest.raises(StudyError, match=f"does not list site {name} with this site's"):
            SiteMasking(name, key, parameters(3), site.journal)


@pytest.mark.parametrize("field", ["study_digest", "run_id", "study_hash"])
def test_a_channel_for_another_study_or_run_is_refused(tmp_path, field):
    site, request, _ = halted(3, tmp_path, Action.CHANNEL)
    other = replace(request, **{field: bytes(len(getattr(request, field)))})
    with pytest.raises(ProtocolError, match=r"another study|other study"):
        site.masking.channel_key(other)


def test_channel_keys_stay_until_a_round_has_begun_with_them_or_the_site_restarts(tmp_path):
    site, update, _ = halted(5, tmp_path, Action.UPDATE)
    request = channel_request(site)
    first = site.masking.channel_key(request)
    assert site.masking.channel_key(request) == first
    site.masking.begin(update)
    second = site.masking.channel_key(request)
    assert not set(first.keys.values()) & set(second.keys.values())
    site.restart()
    assert not set(second.keys.values()) & set(site.masking.channel_key(request).keys.values())


def test_every_peer_gets_a_channel_key_of_its_own(tmp_path):
    site, request, _ = halted(5, tmp_path, Action.CHANNEL)
    keys = site.masking.channel_key(request).keys
    assert set(keys) == set(names(5)) - {ME}
    assert len(set(keys.values())) == 4


def forged(site, key, study_hash, public, path=b""):
    """A channel key for this test's site, signed by that identity."""
    root = hash_tree.root_from(transcript.channel_leaf(ME, public), path)
    statement = transcript.channel_statement(study_hash, site, root)
    return PeerKey(site=site, public=public, path=path, signature=key.sign(statement))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda keys, h: keys[2:], "3 sites of this site's circle announced a channel key, and 4"),
        (
            lambda keys, h: (*keys, forged("zz", IdentityKey.generate(), h, b"9" * 32)),
            "'zz' is not one of the 5",
        ),
        (
            lambda keys, h: (forged(ME, identities(5)[ME], h, b"9" * 32), *keys),
            "shares no masks with this site",
        ),
        (
            lambda keys, h: (forged(PEER, IdentityKey.generate(), h, b"9" * 32), *keys[1:]),
            f"channel key of site {PEER} does not verify",
        ),
        (
            lambda keys, h: (forged(PEER, identities(5)[PEER], bytes(32), b"9" * 32), *keys[1:]),
            f"channel key of site {PEER} does not verify",
        ),
        (
            lambda keys, h: (replace(keys[0], public=keys[1].public), *keys[1:]),
            f"channel key of site {PEER} does not verify",
        ),
        (
            lambda keys, h: (replace(keys[0], path=keys[0].path[:32]), *keys[1:]),
            f"channel key of site {PEER} does not verify",
        ),
        (
            lambda keys, h: (forged(PEER, identities(5)[PEER], h, bytes(32)), *keys[1:]),
            f"a key of {PEER} is a low-order point",
        ),
    ],
)
def test_a_doctored_list_of_channel_keys_is_refused(tmp_path, change, sentence):
    site, request, _ = halted(5, tmp_path, Action.KEYS)
    doctored = replace(request, channel_keys=change(request.channel_keys, request.study_hash))
    with pytest.raises(ProtocolError, match=sentence):
        site.masking.round_keys(doctored)
    assert site.masking.round_keys(request).round == 1


def test_a_channel_key_made_for_another_peer_is_refused(tmp_path):
    """What a holder announced to one dealer is not shown to another as if it were for it."""
    site, request, sites = halted(5, tmp_path, Action.KEYS)
    theirs = sites.sites[PEER].masking.channel_key(channel_request(site))
    swapped = replace(part_of(theirs, LAST), site=PEER)
    with pytest.raises(AuthenticationError, match=f"channel key of site {PEER} does not verify"):
        site.masking.round_keys(replace(request, channel_keys=(swapped, *request.channel_keys[1:])))


def test_keys_are_refused_before_a_channel_for_another_study_and_for_a_masked_round(tmp_path):
    site, request, _ = halted(5, tmp_path, Action.KEYS)
    with pytest.raises(ProtocolError, match="other study parameters"):
        site.masking.round_keys(replace(request, study_hash=bytes(32)))
    site.restart()
    with pytest.raises(ProtocolError, match="has announced no channel key"):
        site.masking.round_keys(request)
    (tmp_path / "later").mkdir()
    site, request, _ = halted(5, tmp_path / "later", Action.UPDATE, round=3)
    (tmp_path / "again").mkdir()
    _, keys, _ = halted(5, tmp_path / "again", Action.KEYS)
    for old in (1, 2):
        with pytest.raises(ProtocolError, match=f"round {old} is not above round 2"):
            site.masking.round_keys(replace(keys, round=old))


def test_a_doubled_request_for_keys_is_answered_alike_and_another_request_with_fresh_keys(tmp_path):
    site, request, _ = halted(5, tmp_path, Action.KEYS)
    first = site.masking.round_keys(request)
    assert site.masking.round_keys(request) == first
    later = site.masking.round_keys(replace(request, round=2))
    assert later.public != first.public
    fewer = replace(request, channel_keys=request.channel_keys[:-1])
    assert site.masking.round_keys(fewer).public != first.public
    assert site.masking.round_keys(request).public != first.public


# Beginning a round


def test_a_round_cannot_begin_without_fresh_keys(tmp_path):
    site, request, _ = halted(5, tmp_path, Action.UPDATE)
    with pytest.raises(ProtocolError, match="no unused keys for round 2"):
        site.masking.begin(replace(request, round=2))
    site.masking.begin(request)
    with pytest.raises(ProtocolError, match="no unused keys for round 1"):
        site.masking.begin(request)
    site.restart()
    with pytest.raises(ProtocolError, match="no unused keys for round 1"):
        site.masking.begin(request)


def test_a_round_for_another_study_is_refused(tmp_path):
    site, request, _ = halted(5, tmp_path, Action.UPDATE)
    with pytest.raises(ProtocolError, match="other study parameters"):
        site.masking.begin(replace(request, study_hash=bytes(32)))


def member(site, key, study_hash, round, public, root=bytes(32)):
    statement = transcript.keys_statement(study_hash, round, site, public, root)
    return SignedKey(site=site, public=public, root=root, signature=key.sign(statement))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda p, h: p[:3], "has 3 sites, and this study needs at least 4"),
        (lambda p, h: p[1:], "does not have this site's own key"),
        (
            lambda p, h: (member(ME, identities(5)[ME], h, 1, b"9" * 32), *p[1:]),
            "does not have this site's own key",
        ),
        (
            lambda p, h: (*p, member("zz", IdentityKey.generate(), h, 1, b"9" * 32)),
            "'zz' is not one of the 5",
        ),
        (
            lambda p, h: (p[0], member(PEER, IdentityKey.generate(), h, 1, b"9" * 32), *p[2:]),
            f"keys of round 1 of site {PEER} does not verify",
        ),
        (
            lambda p, h: (p[0], member(PEER, identities(5)[PEER], h, 2, p[1].public), *p[2:]),
            f"keys of round 1 of site {PEER} does not verify",
        ),
        (  # what the true site signed, but did not write this letter for
            lambda p, h: (p[0], member(PEER, identities(5)[PEER], h, 1, b"9" * 32), *p[2:]),
            f"letter from {PEER} for round 1 is not the one that {PEER} wrote",
        ),
        (
            lambda p, h: (p[0], replace(p[1], root=bytes(32)), *p[2:]),
            f"keys of round 1 of site {PEER} does not verify",
        ),
        (
            lambda p, h: (p[0], member(PEER, identities(5)[PEER], h, 1, bytes(32)), *p[2:]),
            f"a key of {PEER} is a low-order point",
        ),
        (
            lambda p, h: (p[0], replace(p[1], public=p[2].public), *p[2:]),
            "the same key for two sites",
        ),
    ],
)
def test_a_doctored_list_of_participants_is_refused(tmp_path, change, sentence):
    site, request, _ = halted(5, tmp_path, Action.UPDATE)
    doctored = replace(request, participants=change(request.participants, request.study_hash))
    with pytest.raises(ProtocolError, match=sentence):
        site.masking.begin(doctored)
    assert len(site.masking.begin(request)) == 32


SPARSE = {"degree": 6, "threshold": 6, "minimum_sites": 6}


def test_a_doctored_key_of_a_site_outside_the_circle_is_refused(tmp_path):
    site, request, _ = halted(9, tmp_path, Action.UPDATE, **SPARSE)
    circle = parameters(9, **SPARSE).circle(ME)
    stranger = next(name for name in names(9) if name not in circle)
    (position,) = (i for i, p in enumerate(request.participants) if p.site == stranger)
    true, key = request.participants[position], identities(9)[stranger]
    for doctored in (
        replace(true, public=b"9" * 32),
        replace(true, root=bytes(32)),
        member(stranger, IdentityKey.generate(), request.study_hash, 1, true.public),
        member(stranger, key, request.study_hash, 2, true.public),
        member(stranger, key, bytes(32), 1, true.public),
    ):
        shown = (*request.participants[:position], doctored, *request.participants[position + 1 :])
        with pytest.raises(
            AuthenticationError, match=f"keys of round 1 of site {stranger} does not verify"
        ):
            site.masking.begin(replace(request, participants=shown))
    assert len(site.masking.begin(request)) == 32


def with_letter(request, **changes):
    """The request with other contents of the peer's letter."""
    true = request.letters[PEER]
    letter = replace(true.letter, **changes)
    return replace(request, letters={**request.letters, PEER: replace(true, letter=letter)})


def test_every_letter_must_be_there_and_be_the_one_that_was_written(tmp_path):
    site, request, _ = halted(5, tmp_path, Action.UPDATE)
    without = {s: letter for s, letter in request.letters.items() if s != PEER}
    with pytest.raises(ProtocolError, match=f"the letter from {PEER} for round 1 is missing"):
        site.masking.begin(replace(request, letters=without))
    true = request.letters[PEER]
    for letters in (
        {**request.letters, PEER: request.letters[LAST]},
        {**request.letters, PEER: replace(true, path=b"")},
        {**request.letters, PEER: replace(true, path=true.path[32:])},
    ):
        with pytest.raises(AuthenticationError, match=f"not the one that {PEER} wrote"):
            site.masking.begin(replace(request, letters=letters))
    for changes in (
        {"box": bytes(81)},
        {"commitment": bytes(32)},
        {"mask_key": ANOTHER},
        {"seed_key": ANOTHER},
    ):
        with pytest.raises(AuthenticationError, match=f"not the one that {PEER} wrote"):
            site.masking.begin(with_letter(request, **changes))
    assert len(site.masking.begin(request)) == 32


def test_a_letter_of_another_round_or_receiver_is_refused(tmp_path):
    _, first, _ = halted(5, tmp_path, Action.UPDATE)
    (tmp_path / "second").mkdir()
    site, second, sites = halted(5, tmp_path / "second", Action.UPDATE, round=2)
    theirs = sites.sites[PEER].masking._next.dealt.message.letters[LAST]
    for letter in (first.letters[PEER].letter, theirs):
        told = replace(second.letters[PEER], letter=letter)
        with pytest.raises(AuthenticationError, match="is not the one"):
            site.masking.begin(replace(second, letters={**second.letters, PEER: told}))


def written(request, site, **changes):
    """The request with a letter that the peer itself wrote otherwise, signed over that alone."""
    true = request.letters[PEER].letter
    letter = replace(true, **changes)
    to = site.masking._next.opens.public(PEER)
    root = leaf_of(letter, ME, to)
    (place,) = (i for i, p in enumerate(request.participants) if p.site == PEER)
    public = request.participants[place].public
    signed = member(PEER, identities(5)[PEER], request.study_hash, 1, public, root)
    return replace(
        request,
        participants=(
            *request.participants[:place],
            signed,
            *request.participants[place + 1 :],
        ),
        letters={**request.letters, PEER: Delivered(letter=letter, path=b"")},
    )


def sealed_by_peer(request, site, share):
    """A box from the peer to this site as an honest one, with another content."""
    public = next(p.public for p in request.participants if p.site == PEER)
    use = seed_use(request.study_hash, 1, PEER, ME, public)
    to = site.masking._next.opens.public(PEER)
    return seal_box(share, to=to, use=use, ephemeral=ExchangeKey(os.urandom(32)))


@pytest.mark.parametrize("field", ["mask_key", "seed_key"])
def test_a_letter_with_a_low_order_key_is_refused(tmp_path, field):
    site, request, _ = halted(5, tmp_path, Action.UPDATE)
    with pytest.raises(AuthenticationError, match=f"a key of {PEER} is a low-order point"):
        site.masking.begin(written(request, site, **{field: bytes(31) + b"\x80"}))


@pytest.mark.parametrize(
    "box",
    [
        lambda request, site: bytes(81),
        lambda request, site: sealed_by_peer(request, site, (7).to_bytes(33, "big")),
        lambda request, site: sealed_by_peer(request, site, b"\xff" * 33),
    ],
    ids=["does not open", "another share", "no field element"],
)
def test_a_site_that_was_dealt_a_wrong_seed_share_takes_part_and_shows_the_key(tmp_path, box):
    site, request, _ = halted(5, tmp_path, Action.UPDATE)
    pending = site.masking._next
    told = written(request, site, box=box(request, site))
    site.masking.begin(told)
    reply = site.masking.mask(ZEROS, SPEC)
    assert reply.complaints == {PEER: pending.opens.secret(PEER)}
    assert set(site.masking._round.received.seed_shares) == set(names(5)[2:])
    public = next(p.public for p in told.participants if p.site == PEER)
    letter = told.letters[PEER].letter
    why = judge(
        reply.complaints[PEER],
        pending.opens.public(PEER),
        letter.box,
        letter.commitment,
        seed_use(told.study_hash, 1, PEER, ME, public),
    )
    assert f"({ME} shows the key that opens the box)" in why


def test_a_site_that_was_dealt_true_shares_complains_of_nobody(tmp_path):
    site, request, _ = halted(5, tmp_path, Action.UPDATE)
    site.masking.begin(request)
    assert site.masking.mask(ZEROS, SPEC).complaints == {}


def test_sites_shown_different_things_begin_different_rounds(tmp_path):
    site, request, _ = halted(5, tmp_path, Action.UPDATE)
    state = site.masking._next
    seen = set()
    for changes in (
        {},
        {"model": MODEL + b"\0\0\0\0"},
        {"configuration": CONFIGURATION + b"."},
        {"participants": request.participants[:-1]},
    ):
        site.masking._next = state
        seen.add(site.masking.begin(replace(request, **changes)))
    assert len(seen) == 4


# Masking


def test_an_update_is_masked_once(tmp_path):
    site, request, _ = halted(5, tmp_path, Action.UPDATE)
    with pytest.raises(ProtocolError, match="no round has begun"):
        site.masking.mask(ZEROS, SPEC)
    site.masking.begin(request)
    site.masking.mask(ZEROS, SPEC)
    with pytest.raises(ProtocolError, match="no round has begun that is still to be masked"):
        site.masking.mask(ZEROS, SPEC)


def test_a_round_that_another_process_of_the_site_masked_is_not_masked_again(tmp_path):
    site, request, _ = halted(5, tmp_path, Action.UPDATE)
    site.masking.begin(request)
    site.journal.claim(parameters(5).study_hash, 1)
    with pytest.raises(ProtocolError, match="masked once"):
        site.masking.mask(ZEROS, SPEC)
    with pytest.raises(ProtocolError, match="round 1 is not above round 1, masked before"):
        site.masking.begin(request)


@pytest.mark.parametrize(
    ("vector", "spec", "sentence"),
    [
        (ZEROS[1:], SPEC, "layout is uint32"),
        (ZEROS.astype(np.int32), SPEC, "layout is uint32"),
        (ZEROS.astype(np.float32), SPEC, "layout is uint32"),
        (
            ZEROS,
            VectorSpec(ring_bits=16, segments=(Segment(name="a", length=SPEC.length, linf=9000),)),
            "wraps",
        ),
    ],
)
def test_what_does_not_fit_the_ring_is_refused_and_the_round_stays_open(
    tmp_path, vector, spec, sentence
):
    site, request, _ = halted(5, tmp_path, Action.UPDATE)
    site.masking.begin(request)
    with pytest.raises(EncodingError, match=sentence):
        site.masking.mask(vector, spec)
    assert site.masking.mask(ZEROS, SPEC).round == 1


def test_the_vector_given_is_not_changed_by_masking(tmp_path):
    site, request, _ = halted(5, tmp_path, Action.UPDATE)
    site.masking.begin(request)
    vector = np.arange(SPEC.length, dtype=np.uint32)
    site.masking.mask(vector, SPEC)
    assert (vector == np.arange(SPEC.length)).all()


# Agreeing and unmasking


BAD_SURVIVORS = [
    (tuple(names(5)[1:]), "do not include this site"),
    (tuple(names(5)[:3]), "3 sites survive, and a sum over fewer than 4 is never opened"),
    ((ME,), "1 sites survive"),
    ((*names(5), "zz"), "did not take part in the round"),
]


@pytest.mark.parametrize(("survivors", "sentence"), BAD_SURVIVORS)
def test_survivors_that_must_not_be_opened_are_neither_signed_nor_unmasked(
    tmp_path, survivors, sentence
):
    site, request, _ = halted(5, tmp_path, Action.AGREE)
    with pytest.raises(ProtocolError, match=sentence):
        site.masking.agree(replace(request, survivors=survivors))
    (tmp_path / "unmask").mkdir()
    site, request, _ = masked(tmp_path / "unmask")
    site.masking._round.agreed = None
    signatures = sign_survivors(request.context, survivors, [s for s in survivors if s != "zz"])
    with pytest.raises(ProtocolError, match=sentence):
        site.masking.unmask(replace(request, survivors=survivors, signatures=signatures))


def test_the_threshold_counts_where_it_is_above_what_is_left(tmp_path):
    site, request, _ = masked(tmp_path, minimum_sites=5, threshold=4)
    with pytest.raises(ProtocolError, match="4 sites survive, and a sum over fewer than 5"):
        site.masking.unmask(replace(request, survivors=tuple(names(5)[:4])))


def test_one_list_of_survivors_is_signed_in_a_round(tmp_path):
    site, request, _ = halted(5, tmp_path, Action.AGREE)
    first = site.masking.agree(request)
    assert site.masking.agree(request) == first
    with pytest.raises(ProtocolError, match="other survivors were agreed to in round 1"):
        site.masking.agree(replace(request, survivors=tuple(names(5)[:4])))


def test_nothing_is_revealed_for_survivors_other_than_those_agreed_to(tmp_path):
    site, request, _ = masked(tmp_path)
    fewer = tuple(names(5)[:4])
    signatures = sign_survivors(request.context, fewer, fewer)
    with pytest.raises(ProtocolError, match="other survivors were agreed to"):
        site.masking.unmask(replace(request, survivors=fewer, signatures=signatures))


def test_nothing_is_revealed_without_enough_true_signatures(tmp_path):
    site, request, _ = masked(tmp_path)
    three = dict(list(request.signatures.items())[:3])
    with pytest.raises(ProtocolError, match="3 sites signed the survivors, and 4 are needed"):
        site.masking.unmask(replace(request, signatures=three))
    bad = {**request.signatures, PEER: request.signatures[ME]}
    with pytest.raises(AuthenticationError, match=f"the survivors of site {PEER} does not verify"):
        site.masking.unmask(replace(request, signatures=bad))
    fewer = sign_survivors(request.context, tuple(names(5)[:4]), names(5)[:4])
    with pytest.raises(AuthenticationError, match="does not verify"):
        site.masking.unmask(replace(request, signatures=fewer))


def test_a_site_that_has_not_agreed_is_not_told_that_it_has(tmp_path):
    site, request, _ = masked(tmp_path)
    site.masking._round.agreed = None
    forged = {**request.signatures, ME: bytes(64)}
    with pytest.raises(AuthenticationError, match=f"the survivors of site {ME} does not verify"):
        site.masking.unmask(replace(request, signatures=forged))


def test_a_signature_by_a_site_that_does_not_survive_does_not_count(tmp_path):
    site, request, _ = halted(5, tmp_path, Action.UNMASK)
    site.masking._round.agreed = None
    survivors = tuple(names(5)[:4])
    signatures = sign_survivors(request.context, survivors, [*names(5)[:3], LAST])
    with pytest.raises(ProtocolError, match=f"{LAST} signed the survivors without being one"):
        site.masking.unmask(replace(request, survivors=survivors, signatures=signatures))


@pytest.mark.parametrize("step", ["agree", "unmask"])
def test_another_study_or_context_is_refused_in_every_step(tmp_path, step):
    action = Action.AGREE if step == "agree" else Action.UNMASK
    site, request, _ = halted(5, tmp_path, action)

    def ask(changed):
        return getattr(site.masking, step)(changed)

    with pytest.raises(ProtocolError, match="other study parameters"):
        ask(replace(request, study_hash=bytes(32)))
    with pytest.raises(ProtocolError, match="not for the round this site has masked last"):
        ask(replace(request, context=bytes(32)))
    site.restart()
    with pytest.raises(ProtocolError, match="not for the round this site has masked last"):
        ask(request)


def test_a_round_that_is_not_masked_yet_is_not_unmasked(tmp_path):
    site, request, _ = halted(5, tmp_path, Action.UPDATE)
    (tmp_path / "other").mkdir()
    _, unmask, _ = masked(tmp_path / "other")
    begun = site.masking.begin(request)
    with pytest.raises(ProtocolError, match="masked last"):
        site.masking.unmask(replace(unmask, context=begun))


def test_of_each_site_one_secret_is_revealed_and_never_both(tmp_path):
    coordinator, sites = federation(5, tmp_path, threshold=3, collusion=0)
    sites.sites[LAST].masking.mask = lambda *_: (_ for _ in ()).throw(ProtocolError("down"))
    coordinator.open()
    run_round(coordinator, 1)
    finished = sites.sites[ME].masking._finished.reply
    assert set(finished.self_mask_shares) == set(names(5)[:4])
    assert set(finished.seed_shares) == {LAST}


def test_a_repeated_request_gets_the_same_answer_and_another_one_none(tmp_path):
    site, request, _ = masked(tmp_path)
    first = site.masking.unmask(request)
    assert site.masking.unmask(request) == first
    fewer = tuple(names(5)[:4])
    signatures = sign_survivors(request.context, fewer, fewer)
    with pytest.raises(ProtocolError, match="round 1 was unmasked for other survivors"):
        site.masking.unmask(replace(request, survivors=fewer, signatures=signatures))


def test_a_wrong_mask_share_is_left_out_and_the_key_to_its_box_is_shown(tmp_path):
    site, request, _ = masked(tmp_path)
    opens = site.masking._round.masks
    boxes = {**request.boxes, PEER: replace(request.boxes[PEER], commitment=bytes(32))}
    del boxes[LAST]
    reply = site.masking.unmask(replace(request, boxes=boxes))
    assert set(reply.self_mask_shares) == set(names(5)) - {PEER, LAST}
    assert reply.complaints == {PEER: opens.secret(PEER)}


def test_no_box_of_a_site_outside_the_survivors_is_opened_or_complained_of(tmp_path):
    """A dropped site's seed share is revealed, so its mask share must not be, in no way."""
    coordinator, sites = federation(5, tmp_path, threshold=3, collusion=0)
    uploads = {}

    def keep(site, action, reply):
        if action is Action.UPDATE:
            uploads[site] = MaskedUpdate.from_bytes(reply)
            return b"lost" if site == LAST else reply
        return reply

    def slip_in(site, action, body):
        if action is not Action.UNMASK:
            return body
        request = UnmaskRequest.from_bytes(body)
        rubbish = MaskBox(commitment=bytes(32), box=bytes(81))
        late = uploads[LAST].boxes[site] if site != ME else rubbish
        return replace(request, boxes={**request.boxes, LAST: late}).to_bytes()

    sites.alter, sites.alter_request = keep, slip_in
    coordinator.open()
    run_round(coordinator, 1)
    for name in names(5)[:4]:
        reply = sites.sites[name].masking._finished.reply
        assert LAST not in reply.self_mask_shares
        assert reply.complaints == {}
        assert set(reply.seed_shares) == {LAST}


def test_keys_for_the_next_round_come_with_the_shares_until_the_last_round(tmp_path):
    site, request, _ = masked(tmp_path)
    assert site.masking.unmask(request).next_keys.round == 2
    (tmp_path / "last").mkdir()
    coordinator, sites = federation(3, tmp_path / "last")
    coordinator.open(round=MAX_ROUND)
    run_round(coordinator, MAX_ROUND)
    assert sites.sites[ME].masking._finished.reply.next_keys is None


def test_keys_for_a_later_round_give_up_the_round_in_progress(tmp_path):
    site, request, sites = masked(tmp_path)
    keys = keys_request(site, sites)
    with pytest.raises(ProtocolError, match="round 1 is not above round 1"):
        site.masking.round_keys(replace(keys, round=1))
    site.masking.round_keys(keys)
    with pytest.raises(ProtocolError, match="masked last"):
        site.masking.unmask(request)


def channel_request(site):
    agreed = site.masking.parameters
    return ChannelRequest(
        study_digest=agreed.study_digest,
        run_id=agreed.run_id,
        study_hash=agreed.study_hash,
        declared=declared_sizes(agreed.roster),
    )


def keys_request(site, sites):
    """A request for the keys of round 2, with fresh channel keys of all sites."""
    announced = {
        name: other.masking.channel_key(channel_request(site))
        for name, other in sites.sites.items()
    }
    shown = [part_of(key, site.site) for name, key in announced.items() if name != site.site]
    return KeysRequest(
        study_hash=site.masking.parameters.study_hash, round=2, channel_keys=tuple(shown)
    )


def test_a_round_that_has_begun_keeps_its_keys(tmp_path):
    site, update, sites = halted(5, tmp_path, Action.UPDATE)
    site.masking.begin(update)
    keys = keys_request(site, sites)
    with pytest.raises(ProtocolError, match="round 1 has begun, so its keys cannot be replaced"):
        site.masking.round_keys(replace(keys, round=1))


# Secrets


def test_no_secret_of_a_round_is_alive_after_unmask(tmp_path):
    drawn = []

    def entropy(count):
        drawn.append(os.urandom(count))
        return drawn[-1]

    coordinator, sites = federation(5, tmp_path)
    site = sites.sites[ME]
    site._options["entropy"] = entropy
    site.restart()
    coordinator.open()
    round_key = site.masking._next.dealt.exchange
    opened = len(drawn)
    run_round(coordinator, 1)
    of_round_1 = [secret for secret in drawn[:opened] if len(secret) == 32]
    later = [secret for secret in drawn[opened:] if len(secret) == 32]
    # channel keys, round seed, keys for mask boxes, keys for seed boxes of round 2, ephemeral key
    assert len(of_round_1) == 4 + 1
    # self mask and ephemeral key; round seed 2, its keys for boxes, ephemeral key
    assert len(later) == (1 + 1) + (3 + 1)
    alive = reachable(site.masking.__dict__)
    assert round_key not in alive
    for_round_2 = {of_round_1[3], *later[3:5]}
    assert for_round_2 <= {secret for secret in alive if isinstance(secret, bytes)}
    for secret in [*of_round_1, *later]:
        assert (secret in alive) == (secret in for_round_2)


def test_no_secret_shared_with_others_is_alive_after_unmask(tmp_path):
    site, request, _ = masked(tmp_path)
    state = site.masking._round
    assert state.pair_secrets == {}
    secrets = [*state.received.seed_shares.values(), state.mask_share, state.masks._seed]
    alive = reachable(site.masking.__dict__)
    assert all(secret in alive for secret in secrets)
    reply = site.masking.unmask(request)
    del secrets[-2]  # revealed in the reply, which is kept for a coordinator that asks again
    assert reply.self_mask_shares[ME] == state.mask_share
    alive = reachable(site.masking.__dict__)
    assert not any(secret in alive for secret in secrets)


def test_no_secret_is_printed_pickled_copied_or_logged(tmp_path, caplog, capsys):
    caplog.set_level(logging.DEBUG)
    site, request, _ = masked(tmp_path)
    for secret in (site.masking, site.masking._round, site.masking._round.masks, site.masking._me):
        assert re.fullmatch(r"<\w+, secret>", repr(secret))
        for attempt in (pickle.dumps, copy.copy, copy.deepcopy):
            with pytest.raises(TypeError, match="never pickled or copied"):
                attempt(secret)
    site.masking.unmask(request)
    assert caplog.text == ""
    assert capsys.readouterr() == ("", "")


def test_nothing_but_the_journal_is_written_to_disk(tmp_path):
    drawn = []

    def entropy(count):
        drawn.append(os.urandom(count))
        return drawn[-1]

    coordinator, sites = federation(4, tmp_path)
    for site in sites.sites.values():
        site._options["entropy"] = entropy
        site.restart()
    coordinator.open()
    run_round(coordinator, 1)
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.name.split(".")[0] for path in written} == set(names(4))
    assert {path.name.split(".")[1] for path in written} <= {
        "sqlite",
        "sqlite-wal",
        "sqlite-shm",
    }
    for path in written:
        contents = path.read_bytes()
        assert not any(secret in contents for secret in drawn)
