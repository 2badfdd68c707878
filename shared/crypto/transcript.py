"""The exact bytes that are hashed and signed: one function per statement of the protocol.

Every statement is a label, a count and length-prefixed parts, so no two different statements can
share an encoding, and a signature made for one purpose never verifies for another.
"""

import hashlib
from collections.abc import Mapping, Sequence
from functools import lru_cache

Encodable = bytes | str | int

_LENGTHS = tuple(length.to_bytes(8, "big") for length in range(128))  # of nearly every part


def encode(label: str, *parts: Encodable) -> bytes:
    """Injective encoding of a labelled list: every part behind its length as 8 bytes, big-endian.

    Text is UTF-8; a whole number (0 <= number < 2^64) takes 8 bytes, big-endian.
    """
    pieces = [_opening(label, len(parts))]
    for part in parts:
        if isinstance(part, bytes):
            plain = part
        else:
            plain = part.encode() if isinstance(part, str) else part.to_bytes(8, "big")
        length = len(plain)
        pieces.append(_LENGTHS[length] if length < 128 else length.to_bytes(8, "big"))
        pieces.append(plain)
    return b"".join(pieces)


@lru_cache(maxsize=256)
def _opening(label: str, count: int) -> bytes:
    """The first bytes of an encoding; cached, since many statements share a label and a count."""
    name = f"consilium/1/{label}".encode()
    return b"".join([len(name).to_bytes(8, "big"), name, _LENGTHS[8], count.to_bytes(8, "big")])


def digest(label: str, *parts: Encodable) -> bytes:
    """SHA-256 of `encode`; 32 bytes."""
    return hashlib.sha256(encode(label, *parts)).digest()


def node(low: bytes, high: bytes) -> bytes:
    """``digest("node", low, high)``, each shorter than 128 bytes: the most frequent of all."""
    begun = _NODE + _LENGTHS[len(low)] + low
    return hashlib.sha256(begun + _LENGTHS[len(high)] + high).digest()


_NODE = _opening("node", 2)


def sha256(data: bytes | memoryview) -> bytes:
    """Plain SHA-256 of a large body (a model, a configuration), taken as received; 32 bytes."""
    return hashlib.sha256(data).digest()


def channel_leaf(dealer: str, public: bytes) -> bytes:
    """The part of a site's channel keys that is for one dealer; 32 bytes."""
    return digest("channel-key", dealer, public)


def channel_statement(study_hash: bytes, site: str, root: bytes) -> bytes:
    """What a site signs to announce the keys to which its peers shall seal their next shares.

    Args:
        study_hash: of the run.
        site: the signer.
        root: of the hash tree over `channel_leaf` for each peer in the sorted order of names.
    """
    return encode("channel", study_hash, site, root)


def own_leaf(site: str, commitment: bytes) -> bytes:
    """The part of a site's round keys about the share that it keeps itself; 32 bytes."""
    return digest("own-share", site, commitment)


def letter_leaf(
    holder: str, to: bytes, commitment: bytes, box: bytes, mask_key: bytes, seed_key: bytes
) -> bytes:
    """The part of a site's round keys that is for one holder; 32 bytes.

    Args:
        holder: the peer.
        to: the holder's key to which the share is sealed.
        commitment: to the share.
        box: with the share.
        mask_key: to which the holder shall seal its share of this round's self mask.
        seed_key: to which the holder shall seal its share of the next round's seed.
    """
    return digest("letter", holder, to, commitment, box, mask_key, seed_key)


def keys_statement(study_hash: bytes, round: int, site: str, public: bytes, root: bytes) -> bytes:
    """What a site signs to announce its key of one round, and what it says to each holder.

    Args:
        study_hash: of the run.
        round: the round's number.
        site: the signer.
        public: its X25519 key of the round.
        root: of the hash tree over `own_leaf` and each holder's `letter_leaf`, in the sorted order
            of names.
    """
    return encode("keys", study_hash, round, site, public, root)


def masked_statement(
    context: bytes,
    site: str,
    commitment: bytes,
    own_commitment: bytes,
    boxes: Mapping[str, tuple[bytes, bytes, bytes]],
) -> bytes:
    """What a site signs of the shares of its self mask.

    Args:
        context: of the round.
        site: the signer.
        commitment: to the self mask's seed.
        own_commitment: to the share that the site keeps itself.
        boxes: by holder, the key sealed to, the commitment to the share, the box.
    """
    dealt = [part for holder in sorted(boxes) for part in (holder, *boxes[holder])]
    return encode("masked", context, site, commitment, own_commitment, *dealt)


def survivors_statement(context: bytes, survivors: Sequence[str]) -> bytes:
    """What a site signs to agree to the survivors of the round that `context` stands for."""
    return encode("survivors", context, *survivors)


def begun_context(
    study_hash: bytes,
    round: int,
    model: bytes | memoryview,
    configuration: bytes | memoryview,
    keys: Mapping[str, bytes],
) -> bytes:
    """Hash of all a site was shown when the round began; 32 bytes.

    Args:
        study_hash: digest of the parameters.
        round: the round's number.
        model: the global model exactly as received.
        configuration: the round's configuration exactly as received.
        keys: round public key by site, of all participants.
    """
    members = [part for site in sorted(keys) for part in (site, keys[site])]
    return digest("begun", study_hash, round, sha256(model), sha256(configuration), *members)


def round_context(begun: bytes, spec_digest: bytes) -> bytes:
    """The round context: what the site was shown, bound to the layout of the summed vector."""
    return digest("context", begun, spec_digest)


def commit_seed_share(
    study_hash: bytes, round: int, owner: str, holder: str, share: bytes
) -> bytes:
    """Commitment to the share of `owner`'s round seed that `holder` keeps."""
    return digest("seed-share", study_hash, round, owner, holder, share)


def commit_mask_share(context: bytes, owner: str, holder: str, share: bytes) -> bytes:
    """Commitment to the share of `owner`'s self-mask seed that `holder` keeps."""
    return digest("mask-share", context, owner, holder, share)


def commit_self_mask(context: bytes, owner: str, seed: bytes) -> bytes:
    """Commitment to `owner`'s self-mask seed, bound to the round."""
    return digest("self-mask", context, owner, seed)
