"""Breaks published or executed against other implementations, tried on this one."""

import math
import os
import zlib
from dataclasses import replace

import numpy as np
import pytest

from consilium.shared.crypto.keys import ExchangeKey, IdentityKey, derive, pair_seed
from consilium.shared.crypto.keystream import Keystream, add_masks
from consilium.shared.errors import EncodingError, ProtocolError, RoundVoidError, StudyError
from consilium.shared.secure_sum.fixed_point import Segment, VectorSpec, encode
from consilium.shared.secure_sum.messages import Action, MaskedUpdate, SignedKey, Unmasked
from consilium.shared.secure_sum.packing import unpack
from consilium.shared.secure_sum.tail import TAIL
from tests.adversary import COLLUDER, HONEST, Adversary
from tests.in_process import (
    LOST,
    SPEC,
    UNHEARD,
    federation,
    halted,
    names,
    parameters,
    plain_sum,
    run_round,
)

WIDE = VectorSpec(ring_bits=32, segments=(Segment(name="a", length=50_000, linf=1e6),))


def uploads_of(tmp_path, spec, vector, rounds):
    """One site's masked vectors of several rounds, all of the same input.

    Every secret of every site is drawn from a fixed keystream: what is seen is the same each time.
    """
    coordinator, sites = federation(3, tmp_path, spec)
    for number, site in enumerate(sites.sites.values()):
        site._options["entropy"] = Keystream(bytes([number]) * 32).bytes
        site.restart()
    first = sites.sites[names(3)[0]]
    caught = []

    def catch(site, action, reply):
        if (site, action) == (first.site, Action.UPDATE):
            packed = MaskedUpdate.from_bytes(reply).packed
            caught.append(unpack(packed, spec.length + TAIL, spec.ring_bits))
        return reply

    sites.alter = catch
    coordinator.open()
    for round in range(1, rounds + 1):
        for site in sites.sites.values():
            site.vectors[round] = vector
        run_round(coordinator, round, spec)
    return caught


def chi_square(values, bins=256):
    counts = np.bincount(values, minlength=bins)
    expected = len(values) / bins
    statistic = ((counts - expected) ** 2 / expected).sum()
    return (statistic - (bins - 1)) / math.sqrt(2 * (bins - 1))


@pytest.mark.parametrize("fill", [0, 1, 2**32 - 1])
def test_masked_vectors_are_uniform_whatever_the_input(tmp_path, fill):
    """Every byte of a masked vector, over keys of many rounds; six standard deviations allowed."""
    masked = np.stack(uploads_of(tmp_path, WIDE, np.full(WIDE.length, fill, np.uint32), 4))
    octets = masked.view(np.uint8).reshape(-1, 4)
    for place in range(4):
        assert abs(chi_square(octets[:, place])) < 6
    low = (masked & 0xFF).astype(np.int64)
    assert abs(chi_square((low[:, 1:] ^ low[:, :-1]).ravel())) < 6
    assert abs(chi_square((low[1:] ^ low[:-1]).ravel())) < 6


def test_a_slightly_broken_mask_would_be_seen_as_not_uniform():
    """A control for the test above: one byte in two hundred zeroed is far beyond its bound."""
    octets = np.frombuffer(Keystream(bytes(32)).bytes(800_000), np.uint8).copy()
    octets[::200] = 0
    assert chi_square(octets) > 20


def test_masked_vectors_do_not_correlate_with_their_input(tmp_path):
    rng = np.random.default_rng(0)
    vector = rng.integers(-(10**6), 10**6, WIDE.length).astype(np.int32)
    for masked in uploads_of(tmp_path, WIDE, vector.view(np.uint32), 3):
        signed = masked[: WIDE.length].view(np.int32).astype(float)
        correlation = np.corrcoef(signed, vector)[0, 1]
        assert abs(correlation) < 6 / math.sqrt(WIDE.length)


def test_no_two_sites_or_rounds_share_a_mask(tmp_path):
    """Masks of equal inputs all differ, so no pair of uploads cancels."""
    spec = VectorSpec(ring_bits=32, segments=(Segment(name="a", length=8, linf=1.0),))
    masked = uploads_of(tmp_path, spec, np.zeros(8, np.uint32), 6)
    assert len({row.tobytes() for row in masked}) == len(masked)
    differences = {(a - b).tobytes() for i, a in enumerate(masked) for b in masked[i + 1 :]}
    assert len(differences) == len(masked) * (len(masked) - 1) // 2


def test_mask_seeds_keep_all_256_bits():
    """Seeds folded to 32 bits fall to a meet in the middle; ours depend on every bit."""
    secret = ExchangeKey(bytes(range(32))).shared_secret(ExchangeKey(bytes([7]) * 32).public)
    base = pair_seed(secret, context=bytes(32), low="a", high="b")
    assert len(base) == 32
    first = Keystream(base).bytes(64)
    for bit in range(256):
        flipped = bytearray(base)
        flipped[bit // 8] ^= 1 << (bit % 8)
        assert Keystream(bytes(flipped)).bytes(64) != first
    folded = {zlib.crc32(derive(secret, salt=bytes(32), label="x", parts=(i,))) for i in range(99)}
    assert len(folded) == 99
    vector = np.zeros(4, np.uint32)
    with pytest.raises(ValueError, match="32 bytes, not 4"):
        add_masks(vector, plus=[base[:4]])


def test_both_secrets_of_a_site_are_not_given_in_one_request_nor_in_two(tmp_path):
    adversary = Adversary(tmp_path)
    for site in HONEST:
        adversary.keys(site, 1)
    for site in HONEST:
        adversary.update(site, 1, HONEST, b"model")
    context = adversary.uploads[0].message.context
    everyone = (*HONEST, COLLUDER)
    for survivors in (everyone, everyone[1:], everyone[:-1], everyone):
        for site in HONEST:
            adversary.agree(site, context, survivors)
        for site in HONEST:
            adversary.unmask(site, context, survivors)
    for upload in adversary.uploads:
        mask_shares = adversary.mask_shares[context, upload.site]
        seed_shares = adversary.seed_shares[dict(upload.keys)[upload.site]]
        assert set(mask_shares) & set(seed_shares) <= {COLLUDER}
    assert adversary.violations() == []


def test_invented_peers_are_refused(tmp_path):
    site, request, _ = halted(5, tmp_path, Action.UPDATE)
    stranger = IdentityKey.generate()
    invented = SignedKey(
        site="zz-invented",
        public=bytes([9]) * 32,
        root=bytes(32),
        signature=stranger.sign(b""),
    )
    strangers = [replace(invented, site=f"zz-{i}", public=bytes([i + 1]) * 32) for i in range(4)]
    for participants in (
        (*request.participants, invented),
        (*request.participants[:-1], invented),
        (request.participants[0], *strangers),
    ):
        with pytest.raises(ProtocolError, match="is not one of the 5 in the study's roster"):
            site.masking.begin(replace(request, participants=participants))


@pytest.mark.parametrize("threshold", [-1, 0, 1, 2])
def test_a_threshold_of_one_is_refused(threshold):
    with pytest.raises(StudyError, match="must exceed 5 sites plus 1 colluding"):
        parameters(5, threshold=threshold)


@pytest.mark.parametrize("name", ["update.x", "train", "train.x", "evaluate", "query", "UPDATE"])
def test_no_other_action_passes_unmasked(name):
    with pytest.raises(ValueError, match="is not a valid Action"):
        Action(name)


@pytest.mark.parametrize("fault", [LOST, UNHEARD])
@pytest.mark.parametrize("action", [Action.CHANNEL, Action.KEYS])
def test_a_dropout_in_the_set_up_does_not_lose_the_round(tmp_path, action, fault):
    coordinator, sites = federation(4, tmp_path)
    sites.faults = {(names(4)[2], action): fault}
    coordinator.open()
    result = run_round(coordinator, 1)
    assert result.dropped == (names(4)[2],)
    assert (result.ring_total == plain_sum(sites, result.survivors, 1)).all()


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_updates_that_are_not_finite_never_reach_the_ring(bad):
    values = np.zeros(SPEC.segments[0].length, np.float32)
    values[3] = bad
    parts = {"update": values, "counts": np.zeros(4, np.int64)}
    with pytest.raises(EncodingError, match="not finite"):
        encode(parts, SPEC, Keystream(bytes(32)))


def test_a_model_crafted_for_one_site_opens_nothing_of_it(tmp_path):
    """Pasquini et al. (2022): a site shown its own model would stand out in an honest sum."""
    adversary = Adversary(tmp_path)
    for site in HONEST:
        adversary.keys(site, 1)
    for site in HONEST:
        adversary.update(site, 1, HONEST, b"crafted" if site == HONEST[0] else b"model")
    contexts = {upload.message.context for upload in adversary.uploads}
    assert len(contexts) == 2
    for context in contexts:
        for site in HONEST:
            adversary.agree(site, context, (*HONEST, COLLUDER))
        for site in HONEST:
            adversary.unmask(site, context, (*HONEST, COLLUDER))
    assert adversary.revealed_sums() == []


def test_small_survivor_sets_are_refused_at_every_site_and_by_the_coordinator(tmp_path):
    coordinator, sites = federation(5, tmp_path)
    coordinator.open()
    sites.faults = {(site, Action.UPDATE): LOST for site in names(5)[1:]}
    with pytest.raises(RoundVoidError, match="1 of 5 sites sent a masked update, and 4 are"):
        run_round(coordinator, 1)


def test_a_late_answer_and_a_retry_do_not_reveal_a_site(tmp_path):
    """A round without a late site is opened; a retry with it would give its update exactly."""
    adversary = Adversary(tmp_path)
    late, others = HONEST[0], (*HONEST[1:], COLLUDER)
    for site in HONEST:
        adversary.keys(site, 1)
    for site in HONEST:
        adversary.update(site, 1, HONEST, b"model")
    context = adversary.uploads[0].message.context
    for ask in (adversary.agree, adversary.unmask):
        for site in HONEST[1:]:
            assert ask(site, context, others)
    for site in HONEST:
        assert not adversary.keys(site, 1)
        assert not adversary.update(site, 1, HONEST, b"model")
        assert adversary.agree(site, context, (*HONEST, COLLUDER)) == (site == late)
        assert not adversary.unmask(site, context, (*HONEST, COLLUDER))
    assert adversary.revealed_sums() == [(1, frozenset(HONEST[1:]))]
    assert late not in adversary.revealed_sums()[0][1]


def test_a_site_that_crashes_after_masking_does_not_mask_the_round_again(tmp_path):
    adversary = Adversary(tmp_path)
    for site in HONEST:
        adversary.keys(site, 1)
    assert adversary.update(HONEST[0], 1, HONEST, b"model")
    adversary.restart(HONEST[0])
    assert not adversary.keys(HONEST[0], 1)
    assert adversary.keys(HONEST[0], 2)
    assert not adversary.update(HONEST[0], 1, HONEST, b"model")


def test_keys_shares_and_boxes_of_one_run_are_worthless_in_another(tmp_path):
    """Two runs of one study and roster, with the same identities, share nothing."""
    for folder in "ab":
        (tmp_path / folder).mkdir()
    site, here, _ = halted(5, tmp_path / "a", Action.UPDATE)
    _, there, _ = halted(5, tmp_path / "b", Action.UPDATE, run_id=b"run-number-0002!")
    assert here.study_hash != there.study_hash
    with pytest.raises(ProtocolError, match="other study parameters"):
        site.masking.begin(there)
    mixed = (here.participants[0], *there.participants[1:])
    for letters in (here.letters, there.letters):
        with pytest.raises(ProtocolError, match=r"keys of round 1 of site .* does not verify"):
            site.masking.begin(replace(here, participants=mixed, letters=letters))
    with pytest.raises(ProtocolError, match=r"not the one that .* wrote to this site"):
        site.masking.begin(replace(here, letters=there.letters))


def test_a_coordinator_never_holds_a_private_key_or_an_unsealed_secret(tmp_path):
    """Some frameworks hand private keys or one common secret to the aggregator."""
    coordinator, sites = federation(4, tmp_path)
    drawn, replies = [], []
    for site in sites.sites.values():
        site._options["entropy"] = lambda count: drawn.append(os.urandom(count)) or drawn[-1]
        site.restart()

    def keep(site, action, reply):
        replies.append((action, reply))
        return reply

    sites.alter = keep
    coordinator.open()
    run_round(coordinator, 1)
    secrets = [secret for secret in drawn if len(secret) == 32]
    # channel keys; twice a round seed, its two sets of keys for boxes, an ephemeral key;
    # once a self mask with an ephemeral key
    assert len(secrets) == 4 * (1 + 2 * (3 + 1) + (1 + 1))
    for _, reply in replies:
        assert not any(secret in reply for secret in secrets)
    unmasked = [Unmasked.from_bytes(r) for a, r in replies if a is Action.UNMASK]
    assert all(set(reply.self_mask_shares) == set(names(4)) for reply in unmasked)
