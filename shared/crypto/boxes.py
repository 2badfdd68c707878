"""Boxes: what one site seals for another's single-use key, and the keys that open them.

A holder announces to each dealer a key of its own (X25519) that serves one dealing and is then
forgotten, so no key that opens a box outlives the round that needs it. The dealer makes one
ephemeral key for all boxes of a dealing and forgets it at once (as for several recipients in
Bellare, Boldyreva and Staddon, "Randomness re-use in multi-recipient encryption schemeas", 2003):
every box has a symmetric key of its own, of its holder's key and name. A holder's key is made for
one dealer only: a holder that was dealt a wrong share may show it to anybody, and it opens nothing
but that dealer's box.
"""

from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from consilium.shared.crypto.keys import (
    KEY_BYTES,
    NONCE_BYTES,
    ExchangeKey,
    Secret,
    derive,
)
from consilium.shared.errors import AuthenticationError

BOX_OVERHEAD = KEY_BYTES + 16
"""Bytes that a box adds: the ephemeral key in front and the authentication tag behind."""

_NO_NONCE = bytes(NONCE_BYTES)  # every box has a key of its own, which seals once


@dataclass(frozen=True, kw_only=True)
class BoxUse:
    """What a box is for; it opens for nothing else.

    Attributes:
        kind: `seed` or `mask`: which secret's share it holds.
        study_hash: of the run.
        round: of the secret.
        dealer: the site that sealed it.
        holder: the site that opens it.
        context: of a seed box the dealer's public key of the round, of a mask box the round's
            context; 32 bytes.
    """

    kind: str
    study_hash: bytes
    round: int
    dealer: str
    holder: str
    context: bytes


class BoxKeys(Secret):
    """A holder's keys for one dealing, one for each dealer, from a 32-byte seed."""

    __slots__ = ("_keys", "_seed")

    def __init__(self, seed: bytes) -> None:
        self._seed = seed
        self._keys: dict[str, ExchangeKey] = {}

    def secret(self, dealer: str) -> bytes:
        """The private key, 32 bytes, that opens this dealer's box and no other."""
        return derive(self._seed, salt=bytes(KEY_BYTES), label="box-key", parts=(dealer,))

    def key(self, dealer: str) -> ExchangeKey:
        """The key pair that opens this dealer's box."""
        if dealer not in self._keys:
            self._keys[dealer] = ExchangeKey(self.secret(dealer))
        return self._keys[dealer]

    def public(self, dealer: str) -> bytes:
        """What the holder announces to this dealer, 32 bytes."""
        return self.key(dealer).public


def seal_box(message: bytes, *, to: bytes, use: BoxUse, ephemeral: ExchangeKey) -> bytes:
    """Seal for the holder's public key, with the dealing's ephemeral key, whose public half leads.

    Under one ephemeral key each holder gets one box at most.

    Raises:
        AuthenticationError: the holder's key is a low-order point.
    """
    key = _box_key(ephemeral.shared_secret(to), ephemeral.public, to, use)
    return ephemeral.public + AESGCM(key).encrypt(_NO_NONCE, message, None)


def open_box(own: ExchangeKey, box: bytes, *, use: BoxUse) -> bytes:
    """Open what `seal_box` made for this key and use.

    Raises:
        AuthenticationError: another key, another use, or altered bytes.
    """
    ephemeral, sealed = box[:KEY_BYTES], box[KEY_BYTES:]
    try:
        key = _box_key(own.shared_secret(ephemeral), ephemeral, own.public, use)
        return AESGCM(key).decrypt(_NO_NONCE, sealed, None)
    except (AuthenticationError, InvalidTag, ValueError):
        raise AuthenticationError(
            f"the {use.kind} box from {use.dealer} for round {use.round} does not open"
        ) from None


def _box_key(secret: bytes, ephemeral: bytes, to: bytes, use: BoxUse) -> bytes:
    parts = (use.kind, use.round, use.dealer, use.holder, use.context, ephemeral, to)
    return derive(secret, salt=use.study_hash, label="box", parts=parts)
