"""How many bytes the secure sum would send, without sending them.

A message's length follows from who takes part: keys, shares, boxes and signatures have fixed
lengths. So one of each kind is encoded, and the rest is counted.
"""

from collections.abc import Collection, Mapping
from functools import cache, lru_cache

import msgpack

from consilium.shared.crypto import hash_tree
from consilium.shared.crypto.boxes import BOX_OVERHEAD
from consilium.shared.crypto.keys import KEY_BYTES, SIGNATURE_BYTES
from consilium.shared.secure_sum.fixed_point import VectorSpec
from consilium.shared.secure_sum.messages import (
    Agreement,
    AgreeRequest,
    ChannelKey,
    ChannelRequest,
    Delivered,
    KeysRequest,
    Letter,
    MaskBox,
    MaskedUpdate,
    PeerKey,
    RoundKeys,
    SignedKey,
    Unmasked,
    UnmaskRequest,
    UpdateRequest,
    declared_sizes,
)
from consilium.shared.secure_sum.packing import packed_bytes
from consilium.shared.secure_sum.parameters import SumParameters
from consilium.shared.secure_sum.secret_sharing import SHARE_BYTES
from consilium.shared.secure_sum.tail import TAIL
from consilium.shared.wire.encoding import Message, to_plain

_DIGEST, _KEY, _SIGNATURE = bytes(32), bytes(KEY_BYTES), bytes(SIGNATURE_BYTES)
_BOX = bytes(SHARE_BYTES + BOX_OVERHEAD)
_SOME = "s"  # a site, in messages whose length is wanted
_LETTER = Letter(commitment=_DIGEST, box=_BOX, mask_key=_KEY, seed_key=_KEY)
_MASK_BOX = MaskBox(commitment=_DIGEST, box=_BOX)


Bytes = dict[str, int]
Sites = frozenset[str]


class Traffic:
    """Counts the messages of one group's secure sums.

    Args:
        parameters: of the group.
    """

    def __init__(self, parameters: SumParameters) -> None:
        self._parameters = parameters
        self._letters = lru_cache(maxsize=4)(self._letter_bytes)
        self._shared = lru_cache(maxsize=4)(self._shared_bytes)

    def joining(self, joining: Sites, round: int) -> tuple[Bytes, Bytes]:
        """Return bytes to and from each site that announces channel keys and deals for a round."""
        request = ChannelRequest(
            study_digest=_DIGEST,
            run_id=bytes(16),
            study_hash=_DIGEST,
            declared=declared_sizes(self._parameters.roster),
        )
        asked = _length(request)
        asked += _length(KeysRequest(study_hash=_DIGEST, round=round, channel_keys=()))
        channel = _length(ChannelKey(site=_SOME, keys={}, signature=_SIGNATURE))
        dealt = _length(_keys(round))
        down, up = dict.fromkeys(joining, asked), {}
        for site in joining:
            circle = self._parameters.circle(site) - {site}
            holders = circle & joining
            down[site] += _longer(len(holders))
            up[site] = channel + dealt + 2 * _named(site)
            up[site] += _more(circle, _plain(_KEY)) + _more(holders, _plain(to_plain(_LETTER)))
            for dealer, path in zip(sorted(circle), _path_bytes(len(circle)), strict=True):
                if dealer in joining:
                    down[dealer] += _peer_key(site) + _body(path)
        return down, up

    def round(
        self,
        spec: VectorSpec,
        *,
        round: int,
        participants: Sites,
        dealt_to: Sites,
        survivors: Sites,
        refused: Mapping[str, int],
        model_bytes: int,
        configuration_bytes: int,
    ) -> tuple[Bytes, Bytes]:
        """Return bytes to and from each participant: updates, agreement and shares of a round.

        Args:
            spec: layout of the vector.
            round: its number.
            participants: the sites asked for an update.
            dealt_to: the sites to which shares of the participants' seeds were dealt.
            survivors: those whose update arrived.
            refused: bytes of the reply of each that refused.
            model_bytes: length of the model.
            configuration_bytes: length of the round's configuration.
        """
        asked = _empty_request(round) + _longer(len(participants))
        asked += sum(map(_signed_key, participants))
        asked += _body(model_bytes) + _body(configuration_bytes)
        alive = tuple(sorted(survivors))
        agree = _length(
            AgreeRequest(study_hash=_DIGEST, round=round, context=_DIGEST, survivors=alive)
        )
        signed = dict.fromkeys(alive[: self._parameters.threshold], _SIGNATURE)
        unmask = _length(
            UnmaskRequest(
                study_hash=_DIGEST,
                round=round,
                context=_DIGEST,
                survivors=alive,
                signatures=signed,
                boxes={},
            )
        )
        sent = _empty_update(round) + _body(packed_bytes(spec.length + TAIL, spec.ring_bits))
        sent += _length(Agreement(site=_SOME, round=round, signature=_SIGNATURE))
        sent += _empty_unmasked(round)
        down = {
            site: asked + letters for site, letters in self._letters(participants, dealt_to).items()
        }
        up = dict(refused)
        boxes_down, boxes_up = self._shared(participants, survivors)
        for site in survivors:
            down[site] += agree + unmask + boxes_down[site]
            up[site] = sent + 4 * _named(site) + boxes_up[site]
        return down, up

    def _letter_bytes(self, participants: Sites, dealt_to: Sites) -> Bytes:
        """By receiver, its letters with their paths, in a round's request."""
        found = {}
        for site in participants:
            senders = (self._parameters.circle(site) & participants) - {site}
            found[site] = _more(senders, _plain(to_plain(Delivered(letter=_LETTER, path=b""))))
        for sender in participants:
            leaves = sorted(self._parameters.circle(sender) & (dealt_to | {sender}))
            for site, path in zip(leaves, _path_bytes(len(leaves)), strict=True):
                if site in participants and site != sender:
                    found[site] += _body(path)
        return found

    def _shared_bytes(self, participants: Sites, survivors: Sites) -> tuple[Bytes, Bytes]:
        """By survivor: boxes that it gets; boxes, shares and letters that it sends."""
        box, share = _plain(to_plain(_MASK_BOX)), _plain(bytes(SHARE_BYTES))
        letter = _plain(to_plain(_LETTER))
        down, up = {}, {}
        for site in survivors:
            circle = (self._parameters.circle(site) & participants) - {site}
            alive = circle & survivors
            down[site] = _more(alive, box)
            up[site] = _more(circle, box) + _more(circle, letter)
            up[site] += _more(alive | {site}, share) + _more(circle - alive, share)
        return down, up


def _longer(items: int) -> int:
    """By how much the head of a list of so many is longer than that of an empty one."""
    return len(msgpack.Packer().pack_array_header(items)) - 1


def _more(sites: Collection[str], item: int) -> int:
    """By how much a mapping from these sites to ``item`` bytes each is longer than an empty one."""
    return _longer(len(sites)) + sum(map(_name, sites)) + (1 + item) * len(sites)


def _body(length: int) -> int:
    """By how much so many bytes are longer, with their head, than none."""
    return length + (3 if length >= 1 << 16 else 1 if length >= 1 << 8 else 0)


def _plain(value: object) -> int:
    return len(msgpack.packb(value))


def _length(message: Message) -> int:
    return len(message.to_bytes())


def _named(site: str) -> int:
    """By how much a message is longer for naming this site, and not ``_SOME``."""
    return _name(site) - _name(_SOME)


@lru_cache(maxsize=1 << 13)
def _name(site: str) -> int:
    return _plain(site)


def _signed_key(site: str) -> int:
    return _empty_signed_key() + _named(site)


def _peer_key(site: str) -> int:
    return _empty_peer_key() + _named(site)


@cache
def _empty_signed_key() -> int:
    key = SignedKey(site=_SOME, public=_KEY, root=_DIGEST, signature=_SIGNATURE)
    return _plain(to_plain(key))


@cache
def _empty_peer_key() -> int:
    return _plain(to_plain(PeerKey(site=_SOME, public=_KEY, path=b"", signature=_SIGNATURE)))


@lru_cache(maxsize=64)
def _path_bytes(leaves: int) -> list[int]:
    """Length of each leaf's path in a tree of so many."""
    return [len(path) for path in hash_tree.paths([_DIGEST] * leaves)]


def _keys(round: int) -> RoundKeys:
    return RoundKeys(
        site=_SOME,
        round=round,
        public=_KEY,
        own_commitment=_DIGEST,
        letters={},
        signature=_SIGNATURE,
    )


def _empty_request(round: int) -> int:
    return _length(
        UpdateRequest(
            study_hash=_DIGEST,
            round=round,
            participants=(),
            letters={},
            model=b"",
            configuration=b"",
        )
    )


def _empty_update(round: int) -> int:
    return _length(
        MaskedUpdate(
            site=_SOME,
            round=round,
            context=_DIGEST,
            packed=b"",
            commitment=_DIGEST,
            own_commitment=_DIGEST,
            boxes={},
            complaints={},
            signature=_SIGNATURE,
            audit_head=b"",
        )
    )


def _empty_unmasked(round: int) -> int:
    return _length(
        Unmasked(
            site=_SOME,
            round=round,
            self_mask_shares={},
            seed_shares={},
            complaints={},
            next_keys=_keys(round + 1),
        )
    )
