"""Every message of the secure sum, in the order of a round.

::

    coordinator            site
    ChannelRequest   ->    ChannelKey                          once per run
    KeysRequest      ->    RoundKeys                           first round, or after a failure
    UpdateRequest    ->    MaskedUpdate
    AgreeRequest     ->    Agreement
    UnmaskRequest    ->    Unmasked (with the next RoundKeys)
    anything         ->    Refusal                             and the site counts as dropped
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, ClassVar, TypeVar

from consilium.shared.crypto.keys import KEY_BYTES, SEAL_OVERHEAD, SIGNATURE_BYTES
from consilium.shared.errors import ConsiliumError, MessageError
from consilium.shared.secure_sum.secret_sharing import SHARE_BYTES
from consilium.shared.wire.encoding import (
    CONTROL_BYTES,
    LARGEST_HEAD_BYTES,
    MAX_ROUND,
    SITE,
    VECTOR_BYTES,
    Bulk,
    LongBytes,
    Many,
    Maybe,
    Message,
    Names,
    Octets,
    PerSite,
    Text,
    Whole,
    from_plain,
    open_envelope,
)

_DIGEST = Octets(32, 32)
_SHARE = Octets(SHARE_BYTES, SHARE_BYTES)
_BOX = Octets(SHARE_BYTES + SEAL_OVERHEAD, SHARE_BYTES + SEAL_OVERHEAD)
_SIGNATURE = Octets(SIGNATURE_BYTES, SIGNATURE_BYTES)

Digest = Annotated[bytes, _DIGEST]
PublicKey = Annotated[bytes, Octets(KEY_BYTES, KEY_BYTES)]
Signature = Annotated[bytes, _SIGNATURE]
Site = Annotated[str, SITE]
Round = Annotated[int, Whole(1, MAX_ROUND)]
Sites = Annotated[tuple[str, ...], Names()]
Digests = Annotated[Mapping[str, bytes], PerSite(_DIGEST)]
Signatures = Annotated[Mapping[str, bytes], PerSite(_SIGNATURE)]
Shares = Annotated[Mapping[str, bytes], PerSite(_SHARE)]
Boxes = Annotated[Mapping[str, bytes], PerSite(_BOX)]
Body = Annotated[bytes | memoryview, Bulk(VECTOR_BYTES)]


class Action(StrEnum):
    """All that a coordinator can ask of a site."""

    CHANNEL = "channel"
    KEYS = "keys"
    UPDATE = "update"
    AGREE = "agree"
    UNMASK = "unmask"


@dataclass(frozen=True, kw_only=True, repr=False)
class ChannelRequest(Message):
    """Begin a run of an approved study, or join it again."""

    kind: ClassVar[str] = "channel-request"
    study_digest: Digest
    run_id: Annotated[bytes, Octets(16, 16)]
    study_hash: Digest


@dataclass(frozen=True, kw_only=True, repr=False)
class ChannelKey(Message):
    """A site's X25519 key for sealing shares in this run, signed by its identity."""

    kind: ClassVar[str] = "channel-key"
    site: Site
    public: PublicKey
    signature: Signature


@dataclass(frozen=True, kw_only=True, repr=False)
class KeysRequest(Message):
    """Make keys for a round and deal shares to all sites whose channel keys are given."""

    kind: ClassVar[str] = "keys-request"
    study_hash: Digest
    round: Round
    channel_keys: Annotated[tuple[ChannelKey, ...], Many(ChannelKey)]


@dataclass(frozen=True, kw_only=True, repr=False)
class RoundKeys(Message):
    """A site's X25519 key for one round and its seed's shares, sealed to the holders.

    `commitments` has an entry for every holder, the site itself included; `sealed` for all others.
    """

    kind: ClassVar[str] = "round-keys"
    site: Site
    round: Round
    public: PublicKey
    commitments: Digests
    sealed: Boxes
    signature: Signature


@dataclass(frozen=True, kw_only=True, repr=False)
class SignedKey(Message):
    """What the others see of a site's `RoundKeys`."""

    kind: ClassVar[str] = "signed-key"
    site: Site
    public: PublicKey
    commitments_hash: Digest
    signature: Signature


@dataclass(frozen=True, kw_only=True, repr=False)
class UpdateRequest(Message):
    """Train from this model and send a masked update.

    Attributes:
        participants: signed keys of all participants, the receiver included.
        sealed: by dealer, the share of the dealer's round seed meant for the receiver.
        model: little-endian float32 of the global model.
        configuration: of this round; opaque to the secure sum, bound into the round context.
    """

    kind: ClassVar[str] = "update-request"
    max_bytes: ClassVar[int] = VECTOR_BYTES
    study_hash: Digest
    round: Round
    participants: Annotated[tuple[SignedKey, ...], Many(SignedKey)]
    sealed: Boxes
    model: Body
    configuration: Annotated[bytes, Octets(0, CONTROL_BYTES)]


@dataclass(frozen=True, kw_only=True, repr=False)
class MaskedUpdate(Message):
    """One site's masked vector, and shares of its self-mask seed sealed to the participants.

    `audit_head` is the site's :class:`consilium.shared.audit.heads.AuditHead` with this release
    recorded, encoded; empty if the site keeps no log. It is opaque to the secure sum.
    """

    kind: ClassVar[str] = "masked-update"
    max_bytes: ClassVar[int] = VECTOR_BYTES
    site: Site
    round: Round
    context: Digest
    packed: Body
    commitment: Digest
    share_commitments: Digests
    sealed: Boxes
    audit_head: Annotated[bytes, Octets(0, LARGEST_HEAD_BYTES)]


@dataclass(frozen=True, kw_only=True, repr=False)
class AgreeRequest(Message):
    """These sites' updates arrived: sign that you will help to open their sum and no other."""

    kind: ClassVar[str] = "agree-request"
    study_hash: Digest
    round: Round
    context: Digest
    survivors: Sites


@dataclass(frozen=True, kw_only=True, repr=False)
class Agreement(Message):
    """A site's signature over the context and the survivors."""

    kind: ClassVar[str] = "agreement"
    site: Site
    round: Round
    signature: Signature


@dataclass(frozen=True, kw_only=True, repr=False)
class UnmaskRequest(Message):
    """Reveal shares: of survivors' self masks, of dropped sites' round seeds.

    `signatures` are the survivors', on their own list; `sealed` holds, by survivor, the share of
    its self-mask seed meant for the receiver.
    """

    kind: ClassVar[str] = "unmask-request"
    study_hash: Digest
    round: Round
    context: Digest
    survivors: Sites
    signatures: Signatures
    sealed: Boxes


@dataclass(frozen=True, kw_only=True, repr=False)
class Unmasked(Message):
    """The shares asked for, by the site they are of, and the site's keys for the next round."""

    kind: ClassVar[str] = "unmasked"
    site: Site
    round: Round
    self_mask_shares: Shares
    seed_shares: Shares
    next_keys: Annotated[RoundKeys | None, Maybe(RoundKeys)]


@dataclass(frozen=True, kw_only=True, repr=False)
class Refusal(Message):
    """A site declines; the sentence says why and carries nothing about patients."""

    kind: ClassVar[str] = "refusal"
    site: Site
    code: Annotated[str, Text(64)]
    sentence: Annotated[str, Text(1000)]

    @classmethod
    def of(cls, site: str, error: ConsiliumError) -> "Refusal":
        """The refusal that tells the coordinator of this error."""
        printable = "".join(c if c.isprintable() else " " for c in str(error))
        sentence = " ".join(printable.split())[:1000] or "no reason given"
        return cls(site=site, code=type(error).__name__, sentence=sentence)


M = TypeVar("M", bound=Message)


def read_reply(
    expected: type[M], data: bytes | LongBytes, *, max_bytes: int | None = None
) -> M | Refusal:
    """A site's reply: the message expected, or its refusal.

    Raises:
        MessageError: anything else.
    """
    kind, plain = open_envelope(data, expected.max_bytes if max_bytes is None else max_bytes)
    if kind == Refusal.kind:
        return from_plain(Refusal, plain, kind)
    if kind != expected.kind:
        raise MessageError(f"expected a {expected.kind} message and got one named {kind[:64]!r}")
    return from_plain(expected, plain, kind)
