"""Every message of the secure sum, in the order of a round.

::

    coordinator            site
    ChannelRequest   ->    ChannelKey                          first round, or after a failure
    KeysRequest      ->    RoundKeys                           likewise
    UpdateRequest    ->    MaskedUpdate
    AgreeRequest     ->    Agreement
    UnmaskRequest    ->    Unmasked (with the next RoundKeys)
    anything         ->    Refusal                             and the site counts as dropped
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, ClassVar, TypeVar

from consilium.shared.crypto.boxes import BOX_OVERHEAD
from consilium.shared.crypto.declaration import DECLARATION_BYTES
from consilium.shared.crypto.hash_tree import LONGEST_PATH_BYTES
from consilium.shared.crypto.keys import KEY_BYTES, SIGNATURE_BYTES, Roster
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
    Part,
    PerSite,
    Text,
    Whole,
    from_plain,
    open_envelope,
)

_DIGEST = Octets(32, 32)
_SHARE = Octets(SHARE_BYTES, SHARE_BYTES)
_BOX = Octets(SHARE_BYTES + BOX_OVERHEAD, SHARE_BYTES + BOX_OVERHEAD)
_KEY = Octets(KEY_BYTES, KEY_BYTES)
_SIGNATURE = Octets(SIGNATURE_BYTES, SIGNATURE_BYTES)

Digest = Annotated[bytes, _DIGEST]
PublicKey = Annotated[bytes, _KEY]
Keys = Annotated[Mapping[str, bytes], PerSite(_KEY)]
Signature = Annotated[bytes, _SIGNATURE]
Site = Annotated[str, SITE]
Round = Annotated[int, Whole(1, MAX_ROUND)]
Sites = Annotated[tuple[str, ...], Names()]
Path = Annotated[bytes, Octets(0, LONGEST_PATH_BYTES)]
Box = Annotated[bytes, _BOX]
Signatures = Annotated[Mapping[str, bytes], PerSite(_SIGNATURE)]
Shares = Annotated[Mapping[str, bytes], PerSite(_SHARE)]
Declarations = Annotated[Mapping[str, bytes], PerSite(Octets(DECLARATION_BYTES, DECLARATION_BYTES))]
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
    """Begin a run of an approved study, or join it again.

    `declared` has every site's declared size and its signature
    (:class:`consilium.shared.crypto.declaration.Declaration`).
    `audit_head` is the newest :class:`consilium.shared.audit.heads.AuditHead` of the receiver's own
    log that the coordinator holds, encoded; empty if it holds none. It is opaque to the secure sum.
    """

    kind: ClassVar[str] = "channel-request"
    study_digest: Digest
    run_id: Annotated[bytes, Octets(16, 16)]
    study_hash: Digest
    declared: Declarations
    audit_head: Annotated[bytes, Octets(0, LARGEST_HEAD_BYTES)] = b""


def declared_sizes(roster: Roster) -> dict[str, bytes]:
    """The declared sizes of a roster, as messages carry them."""
    return {
        site: declaration.to_bytes()
        for site, declaration in zip(roster.names, roster.declared, strict=True)
    }


@dataclass(frozen=True, kw_only=True, repr=False)
class ChannelKey(Message):
    """Keys to which each peer shall seal its share of its next round seed, signed together.

    Attributes:
        site: the holder that announces them.
        keys: by peer, an X25519 key of which that peer alone is to make use.
        signature: by the site's identity, over `transcript.channel_statement`.
        audit_head: the site's :class:`consilium.shared.audit.heads.AuditHead` at its last release,
            encoded; empty if there was none.
    """

    kind: ClassVar[str] = "channel-key"
    site: Site
    keys: Keys
    signature: Signature
    audit_head: Annotated[bytes, Octets(0, LARGEST_HEAD_BYTES)] = b""


@dataclass(frozen=True, kw_only=True, repr=False)
class PeerKey(Message):
    """What one dealer sees of a holder's `ChannelKey`: its own part and the path to the root."""

    kind: ClassVar[str] = "peer-key"
    site: Site
    public: PublicKey
    path: Path
    signature: Signature


@dataclass(frozen=True, kw_only=True, repr=False)
class KeysRequest(Message):
    """Make keys for a round and deal shares of their seed to the peers whose keys are given."""

    kind: ClassVar[str] = "keys-request"
    study_hash: Digest
    round: Round
    channel_keys: Annotated[tuple[PeerKey, ...], Many(PeerKey)]


@dataclass(frozen=True, kw_only=True, repr=False)
class Letter(Message):
    """What a site says to one peer with its keys of a round.

    Attributes:
        commitment: to the peer's share of the site's round seed.
        box: that share, sealed to the key that the peer announced for it.
        mask_key: to which the peer shall seal its share of its self mask in this round.
        seed_key: to which the peer shall seal its share of its round seed for the next round.
    """

    kind: ClassVar[str] = "letter"
    commitment: Digest
    box: Box
    mask_key: PublicKey
    seed_key: PublicKey


Letters = Annotated[Mapping[str, Letter], PerSite(Part(Letter))]


@dataclass(frozen=True, kw_only=True, repr=False)
class RoundKeys(Message):
    """A site's X25519 key for one round, and a letter to each peer that shall hold a share of it.

    `own_commitment` is to the share that the site keeps; `signature` is over
    `transcript.keys_statement`, and so over all letters.
    """

    kind: ClassVar[str] = "round-keys"
    site: Site
    round: Round
    public: PublicKey
    own_commitment: Digest
    letters: Letters
    signature: Signature


@dataclass(frozen=True, kw_only=True, repr=False)
class SignedKey(Message):
    """What the others see of a site's `RoundKeys`; `root` stands for its letters."""

    kind: ClassVar[str] = "signed-key"
    site: Site
    public: PublicKey
    root: Digest
    signature: Signature


@dataclass(frozen=True, kw_only=True, repr=False)
class Delivered(Message):
    """A letter as its receiver gets it: with the path to the root that its sender signed."""

    kind: ClassVar[str] = "delivered-letter"
    letter: Annotated[Letter, Part(Letter)]
    path: Path


@dataclass(frozen=True, kw_only=True, repr=False)
class UpdateRequest(Message):
    """Train from this model and send a masked update.

    Attributes:
        participants: signed keys of all participants, the receiver included.
        letters: to the receiver, by sender: all participants of its circle.
        model: little-endian float32 of the global model.
        configuration: of this round; opaque to the secure sum, bound into the round context.
    """

    kind: ClassVar[str] = "update-request"
    max_bytes: ClassVar[int] = VECTOR_BYTES
    study_hash: Digest
    round: Round
    participants: Annotated[tuple[SignedKey, ...], Many(SignedKey)]
    letters: Annotated[Mapping[str, Delivered], PerSite(Part(Delivered))]
    model: Body
    configuration: Annotated[bytes, Octets(0, CONTROL_BYTES)]


@dataclass(frozen=True, kw_only=True, repr=False)
class MaskBox(Message):
    """A share of a self-mask seed, sealed to one holder, and the commitment to it."""

    kind: ClassVar[str] = "mask-box"
    commitment: Digest
    box: Box


MaskBoxes = Annotated[Mapping[str, MaskBox], PerSite(Part(MaskBox))]


@dataclass(frozen=True, kw_only=True, repr=False)
class MaskedUpdate(Message):
    """One site's masked vector, and shares of its self-mask seed sealed to the participants.

    Attributes:
        commitment: to the self-mask seed.
        own_commitment: to the share of it that the site keeps.
        boxes: by holder, every other participant of the site's circle.
        complaints: by dealer whose seed share does not fit its commitment, the private key that
            opens that dealer's box and no other.
        signature: over `transcript.masked_statement`.
        audit_head: the site's :class:`consilium.shared.audit.heads.AuditHead` with this release
            recorded, encoded; empty if the site keeps no log. Opaque to the secure sum.
    """

    kind: ClassVar[str] = "masked-update"
    max_bytes: ClassVar[int] = VECTOR_BYTES
    site: Site
    round: Round
    context: Digest
    packed: Body
    commitment: Digest
    own_commitment: Digest
    boxes: MaskBoxes
    complaints: Keys
    signature: Signature
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

    `signatures` are the survivors', on their own list; `boxes` holds, by survivor of the
    receiver's circle, the share of its self-mask seed meant for the receiver.
    """

    kind: ClassVar[str] = "unmask-request"
    study_hash: Digest
    round: Round
    context: Digest
    survivors: Sites
    signatures: Signatures
    boxes: MaskBoxes


@dataclass(frozen=True, kw_only=True, repr=False)
class Unmasked(Message):
    """The shares asked for, by the site they are of, and the site's keys for the next round.

    `complaints` has, by survivor whose mask share does not fit its commitment, the private key that
    opens that survivor's box and no other.
    """

    kind: ClassVar[str] = "unmasked"
    site: Site
    round: Round
    self_mask_shares: Shares
    seed_shares: Shares
    complaints: Keys
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
