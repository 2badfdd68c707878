import copy
import gc
import logging
import os
import pickle
import re
from dataclasses import replace
from types import FunctionType

import numpy as np
import pytest

from consilium.client.secure_sum.masking import SiteMasking
from consilium.shared.crypto import transcript
from consilium.shared.crypto.keys import ExchangeKey, IdentityKey
from consilium.shared.errors import AuthenticationError, EncodingError, ProtocolError, StudyError
from consilium.shared.secure_sum.fixed_point import Segment, VectorSpec
from consilium.shared.secure_sum.messages import Action, ChannelKey, ChannelRequest, SignedKey
from consilium.shared.wire.encoding import MAX_ROUND
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


def test_the_channel_key_stays_until_the_site_restarts(tmp_path):
    site, request, _ = halted(3, tmp_path, Action.CHANNEL)
    first = site.masking.channel_key(request)
    assert site.masking.channel_key(request) == first
    site.restart()
    assert site.masking.channel_key(request).public != first.public


def forged(site, key, study_hash, public):
    statement = transcript.channel_statement(study_hash, site, public)
    return ChannelKey(site=site, public=public, signature=key.sign(statement))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda keys, h: keys[1:], "does not have this site's own key"),
        (lambda keys, h: keys[:2], "has 2 sites, and this study needs at least 4"),
        (
            lambda keys, h: (forged(ME, identities(5)[ME], h, bytes(range(32))), *keys[1:]),
            "does not have this site's own key",
        ),
        (
            lambda keys, h: (*keys, forged("zz", IdentityKey.generate(), h, b"9" * 32)),
            "'zz' is not one of the 5",
        ),
        (
            lambda keys, h: (
                keys[0],
                forged(PEER, IdentityKey.generate(), h, b"9" * 32),
                *keys[2:],
            ),
            f"channel key of site {PEER} does not verify",
        ),
        (
            lambda keys, h: (
                keys[0],
                forged(PEER, identities(5)[PEER], bytes(32), keys[1].public),
                *keys[2:],
            ),
            f"channel key of site {PEER} does not verify",
        ),
        (
            lambda keys, h: (
                keys[0],
                forged(PEER, identities(5)[PEER], h, keys[2].public),
                *keys[2:],
            ),
            "the same key for two sites",
        ),
        (
            lambda keys, h: (keys[0], forged(PEER, identities(5)[PEER], h, bytes(32)), *keys[2:]),
            "low-order",
        ),
    ],
)
def test_a_doctored_list_of_channel_keys_is_refused(tmp_path, change, sentence):
    site, request, _ = halted(5, tmp_path, Action.KEYS)
    doctored = replace(request, channel_keys=change(request.channel_keys, request.study_hash))
    with pytest.raises(ProtocolError, match=sentence):
        site.masking.round_keys(doctored)
    assert site.masking.round_keys(request).round == 1


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


def member(site, key, study_hash, round, public, commitments=bytes(32)):
    statement = transcript.keys_statement(study_hash, round, site, public, commitments)
    return SignedKey(
        site=site, public=public, commitments_hash=commitments, signature=key.sign(statement)
    )


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
            f"seed share from {PEER} for round 1 does not open",
        ),
        (  # what the true site signed, but did not deal shares of
            lambda p, h: (p[0], member(PEER, identities(5)[PEER], h, 1, b"9" * 32), *p[2:]),
            f"seed share from {PEER} for round 1 does not open",
        ),
        (
            lambda p, h: (p[0], replace(p[1], commitments_hash=bytes(32)), *p[2:]),
            f"seed share from {PEER} for round 1 does not open",
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
        replace(true, commitments_hash=bytes(32)),
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


def test_every_sealed_share_must_be_there_and_open(tmp_path):
    site, request, _ = halted(5, tmp_path, Action.UPDATE)
    peer = request.sealed[PEER]
    without = {s: box for s, box in request.sealed.items() if s != PEER}
    with pytest.raises(ProtocolError, match=f"seed share from {PEER} for round 1 is missing"):
        site.masking.begin(replace(request, sealed=without))
    for box in (request.sealed[LAST], bytes(61), peer[:-1] + bytes([peer[-1] ^ 1])):
        with pytest.raises(AuthenticationError, match=f"seed share from {PEER} for round 1 does"):
            site.masking.begin(replace(request, sealed={**request.sealed, PEER: box}))


def test_a_sealed_share_of_another_round_or_receiver_does_not_open(tmp_path):
    _, first, _ = halted(5, tmp_path, Action.UPDATE)
    (tmp_path / "second").mkdir()
    site, second, _ = halted(5, tmp_path / "second", Action.UPDATE, round=2)
    for box in (first.sealed[PEER], second.sealed[LAST]):
        with pytest.raises(AuthenticationError, match="does not open"):
            site.masking.begin(replace(second, sealed={**second.sealed, PEER: box}))


def test_a_box_that_opens_to_no_share_is_refused(tmp_path):
    site, request, sites = halted(5, tmp_path, Action.UPDATE)
    channels = sites.sites[PEER].masking._channels
    shown = next(member for member in request.participants if member.site == PEER)
    statement = transcript.keys_statement(
        request.study_hash, 1, PEER, shown.public, shown.commitments_hash
    )
    box = channels.seal("seed", 1, transcript.sha256(statement), {ME: b"\xff" * 33})[ME]
    with pytest.raises(AuthenticationError, match="not 33 bytes below the prime"):
        site.masking.begin(replace(request, sealed={**request.sealed, PEER: box}))


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
        site.masking.mask(ZEROS, 1, SPEC)
    site.masking.begin(request)
    site.masking.mask(ZEROS, 1, SPEC)
    with pytest.raises(ProtocolError, match="no round has begun that is still to be masked"):
        site.masking.mask(ZEROS, 1, SPEC)


def test_a_round_that_another_process_of_the_site_masked_is_not_masked_again(tmp_path):
    site, request, _ = halted(5, tmp_path, Action.UPDATE)
    site.masking.begin(request)
    site.journal.claim(parameters(5).study_hash, 1)
    with pytest.raises(ProtocolError, match="masked once"):
        site.masking.mask(ZEROS, 1, SPEC)
    with pytest.raises(ProtocolError, match="round 1 is not above round 1, masked before"):
        site.masking.begin(request)


@pytest.mark.parametrize(
    ("vector", "weight", "spec", "sentence"),
    [
        (ZEROS[1:], 1, SPEC, "layout is uint32"),
        (ZEROS.astype(np.int32), 1, SPEC, "layout is uint32"),
        (ZEROS.astype(np.float32), 1, SPEC, "layout is uint32"),
        (ZEROS, -1, SPEC, "weight -1 is not between 0 and max_weight 10000"),
        (ZEROS, 10_001, SPEC, "weight 10001 is not between"),
        (
            ZEROS,
            1,
            VectorSpec(ring_bits=16, segments=(Segment(name="a", length=SPEC.length, linf=9000),)),
            "wraps",
        ),
    ],
)
def test_what_does_not_fit_the_ring_is_refused_and_the_round_stays_open(
    tmp_path, vector, weight, spec, sentence
):
    site, request, _ = halted(5, tmp_path, Action.UPDATE)
    site.masking.begin(request)
    with pytest.raises(EncodingError, match=sentence):
        site.masking.mask(vector, weight, spec)
    assert site.masking.mask(ZEROS, 1, SPEC).round == 1


def test_the_vector_given_is_not_changed_by_masking(tmp_path):
    site, request, _ = halted(5, tmp_path, Action.UPDATE)
    site.masking.begin(request)
    vector = np.arange(SPEC.length, dtype=np.uint32)
    site.masking.mask(vector, 1, SPEC)
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


def test_a_share_that_does_not_open_is_left_out(tmp_path):
    site, request, _ = masked(tmp_path)
    sealed = {**request.sealed, PEER: bytes(61)}
    del sealed[LAST]
    reply = site.masking.unmask(replace(request, sealed=sealed))
    assert set(reply.self_mask_shares) == set(names(5)) - {PEER, LAST}


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
    (tmp_path / "other").mkdir()
    channel_keys = tuple(s.masking.channel_key(_channel_request(s)) for s in sites.sites.values())
    keys = halted(5, tmp_path / "other", Action.KEYS)[1]
    with pytest.raises(ProtocolError, match="round 1 is not above round 1"):
        site.masking.round_keys(replace(keys, channel_keys=channel_keys))
    site.masking.round_keys(replace(keys, channel_keys=channel_keys, round=2))
    with pytest.raises(ProtocolError, match="masked last"):
        site.masking.unmask(request)


def _channel_request(site):
    agreed = site.masking.parameters
    return ChannelRequest(
        study_digest=agreed.study_digest, run_id=agreed.run_id, study_hash=agreed.study_hash
    )


def test_a_round_that_has_begun_keeps_its_keys(tmp_path):
    site, update, sites = halted(5, tmp_path, Action.UPDATE)
    site.masking.begin(update)
    channel_keys = tuple(s.masking.channel_key(_channel_request(s)) for s in sites.sites.values())
    (tmp_path / "other").mkdir()
    keys = halted(5, tmp_path / "other", Action.KEYS)[1]
    with pytest.raises(ProtocolError, match="round 1 has begun, so its keys cannot be replaced"):
        site.masking.round_keys(replace(keys, channel_keys=channel_keys))


# Secrets


def reachable(root):
    """All bytes and keys that an object still holds, functions left out."""
    seen, waiting, found = set(), [root], []
    while waiting:
        item = waiting.pop()
        if id(item) in seen or isinstance(item, type | FunctionType):
            continue
        seen.add(id(item))
        if isinstance(item, (bytes, ExchangeKey)):
            found.append(item)
        waiting += gc.get_referents(item)
    return found


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
    round_key = site.masking._next.exchange
    opened = len(drawn)
    run_round(coordinator, 1)
    secrets = [secret for secret in drawn if len(secret) == 32]
    channel_seed, round_seed, mask_seed, next_seed = secrets
    alive = reachable(site.masking.__dict__)
    assert round_key not in alive
    for secret in (round_seed, mask_seed, next_seed, channel_seed):
        assert secret not in alive
    assert opened < len(drawn)


def test_no_secret_shared_with_others_is_alive_after_unmask(tmp_path):
    site, request, _ = masked(tmp_path)
    state = site.masking._round
    secrets = [*state.pair_secrets.values(), *state.seed_shares.values()]
    alive = reachable(site.masking.__dict__)
    assert all(secret in alive for secret in secrets)
    site.masking.unmask(request)
    alive = reachable(site.masking.__dict__)
    assert not any(secret in alive for secret in secrets)


def test_no_secret_is_printed_pickled_copied_or_logged(tmp_path, caplog, capsys):
    caplog.set_level(logging.DEBUG)
    site, request, _ = masked(tmp_path)
    for secret in (site.masking, site.masking._round, site.masking._channels):
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
