"""The exact bytes that are hashed and signed: one function per statement of the protocol.

Every statement is a label, a count and length-prefixed parts, so no two different statements can
share an encoding, and a signature made for one purpose never verifies for another.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
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


def sha256(data: bytes | memoryview) -> bytes:
    """Plain SHA-256 of a large body (a model, a configuration), taken as received; 32 bytes."""
    return hashlib.sha256(data).digest()


def channel_statement(study_hash: bytes, site: str, public: bytes) -> bytes:
    """What a site signs to announce its channel key for a run."""
    return encode("channel", study_hash, site, public)


def keys_statement(
    study_hash: bytes, round: int, site: str, public: bytes, commitments_hash: bytes
) -> bytes:
    """What a site signs to announce its key of one round and the shares it dealt of the seed."""
    return encode("keys", study_hash, round, site, public, commitments_hash)


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


def hash_commitments(commitments: Mapping[str, bytes]) -> bytes:
    """One digest over all share commitments, by holder in sorted order."""
    return digest("commitments", *_flat(sorted(commitments.items())))


def _flat(pairs: Iterable[tuple[str, bytes]]) -> list[Encodable]:
    return [part for pair in pairs for part in pair]
