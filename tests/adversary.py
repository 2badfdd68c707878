"""A coordinator that lies at will, with one site on its side, and what it can compute.

The adversary holds everything honest sites ever sent, opens every share sealed to its own site,
signs as that site, and may show each honest site anything, boxes with rubbish in them included, so
that the site complains and shows a key. `revealed_sums` says which sums of honest updates follow
from all that: it rebuilds every secret for which it holds enough shares, takes known masks off, and
keeps what no unknown mask covers.
"""

import gc
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import FunctionType

from consilium.client.secure_sum.letters import leaf_of
from consilium.server.secure_sum.key_exchange import Dealt
from consilium.shared.crypto import hash_tree, transcript
from consilium.shared.crypto.boxes import BoxKeys, BoxUse, open_box, seal_box
from consilium.shared.crypto.keys import ExchangeKey
from consilium.shared.errors import ProtocolError
from consilium.shared.secure_sum.dealt_shares import commit_share, mask_use, seed_use
from consilium.shared.secure_sum.messages import (
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
    UnmaskRequest,
    UpdateRequest,
    declared_sizes,
)
from consilium.shared.secure_sum.secret_sharing import combine
from tests.in_process import SPEC, LocalSite, identities, names, parameters

SITES = 5
HONEST, COLLUDER = names(SITES)[:-1], names(SITES)[-1]
ANY_SHARE = bytes(33)
RUBBISH = bytes(range(81))


@dataclass(frozen=True)
class Upload:
    """A masked update of an honest site, and the keys it was masked under."""

    site: str
    round: int
    keys: tuple[tuple[str, bytes], ...]
    message: MaskedUpdate


class Adversary:
    """Each method sends one site one request and keeps what comes back; refusals give False."""

    def __init__(
        self,
        folder: Path,
        make: Callable[..., LocalSite] = LocalSite,
        sites: int = SITES,
        **changes: object,
    ) -> None:
        self.agreed = parameters(sites, **changes)
        self.sites = {
            site: make(site, key, self.agreed, folder / f"{site}.sqlite", threads=1)
            for site, key in identities(sites).items()
        }
        self.honest = names(sites)[:-1]
        self.colluder = names(sites)[-1]
        self.identity = identities(sites)[self.colluder]
        self.channel_pool: dict[str, list[ChannelKey]] = defaultdict(list)
        self.keys_pool: dict[tuple[str, int], list[Dealt]] = defaultdict(list)
        self.seed_shares: dict[bytes, dict[str, bytes]] = defaultdict(dict)
        self.mask_shares: dict[tuple[bytes, str], dict[str, bytes]] = defaultdict(dict)
        self.signatures: dict[tuple[bytes, tuple[str, ...]], dict[str, bytes]] = defaultdict(dict)
        self.uploads: list[Upload] = []
        self.own = BoxKeys(b"the colluding site's keys for all".ljust(32)[:32])
        for site in self.honest:
            self.channel(site)

    def channel(self, site: str) -> bool:
        request = ChannelRequest(
            study_digest=self.agreed.study_digest,
            run_id=self.agreed.run_id,
            study_hash=self.agreed.study_hash,
            declared=declared_sizes(self.agreed.roster),
        )
        key = self.sites[site].masking.channel_key(request)
        if key not in self.channel_pool[site]:
            self.channel_pool[site].append(key)
        return True

    def restart(self, site: str) -> None:
        self.sites[site].restart()
        self.channel(site)

    def keys(self, site: str, round: int, pick: int = -1) -> bool:
        """Ask for round keys, showing of every other site the channel keys picked."""
        self.channel(site)
        shown = [self._own_channel(site)] if self.colluder in self.agreed.circle(site) else []
        for other in self.honest:
            if other != site and other in self.agreed.circle(site):
                pool = self.channel_pool[other]
                shown.append(part_of(pool[pick % len(pool)], site))
        request = KeysRequest(
            study_hash=self.agreed.study_hash,
            round=round,
            channel_keys=tuple(sorted(shown, key=lambda key: key.site)),
        )
        try:
            reply = self.sites[site].masking.round_keys(request)
        except ProtocolError:
            return False
        self._keep_keys(site, reply, {key.site: key.public for key in shown})
        return True

    def _own_channel(self, site: str) -> PeerKey:
        public = self.own.public(site)
        leaf = transcript.channel_leaf(site, public)
        statement = transcript.channel_statement(self.agreed.study_hash, self.colluder, leaf)
        return PeerKey(
            site=self.colluder, public=public, path=b"", signature=self.identity.sign(statement)
        )

    def _keep_keys(self, site: str, keys: RoundKeys, to: dict[str, bytes]) -> None:
        leaves = [transcript.own_leaf(site, keys.own_commitment)]
        leaves += [leaf_of(letter, holder, to[holder]) for holder, letter in keys.letters.items()]
        by_name = dict(zip([site, *keys.letters], leaves, strict=True))
        in_order = {name: by_name[name] for name in sorted(by_name)}
        root = hash_tree.root(list(in_order.values()))
        dealt = Dealt(keys=keys, to=to, leaves=in_order, root=root)
        self.keys_pool[site, keys.round].append(dealt)
        self._open_seed(self.colluder, dealt, self.own.key(site))

    def _open_seed(self, holder: str, dealt: Dealt, own: ExchangeKey) -> None:
        keys = dealt.keys
        if holder in keys.letters:
            use = seed_use(self.agreed.study_hash, keys.round, keys.site, holder, keys.public)
            self._open(own, keys.letters[holder].box, use, self.seed_shares[keys.public])

    def _open_mask(self, holder: str, upload: Upload, own: ExchangeKey) -> None:
        message = upload.message
        if holder in message.boxes:
            use = mask_use(
                self.agreed.study_hash, upload.round, upload.site, holder, message.context
            )
            shares = self.mask_shares[message.context, upload.site]
            self._open(own, message.boxes[holder].box, use, shares)

    def _open(self, own: ExchangeKey, box: bytes, use: BoxUse, into: dict[str, bytes]) -> None:
        try:
            into[use.holder] = open_box(own, box, use=use)
        except ProtocolError:
            return

    def _hear(self, holder: str, complaints: Mapping[str, bytes]) -> None:
        """Try the keys that a complaining site shows on everything that its dealers ever sent."""
        for dealer, witness in complaints.items():
            own = ExchangeKey(witness)
            for (site, _), pool in self.keys_pool.items():
                if site == dealer:
                    for dealt in pool:
                        self._open_seed(holder, dealt, own)
            for upload in self.uploads:
                if upload.site == dealer:
                    self._open_mask(holder, upload, own)

    def update(
        self,
        site: str,
        round: int,
        members: Iterable[str],
        model: bytes,
        pick: int = -1,
        *,
        rubbish: bool = False,
    ) -> bool:
        """Ask for an update among these members, with the picked keys of each.

        With `rubbish` the letters of the others hold other boxes than they wrote.
        """
        shown, letters = {}, {}
        for member in sorted({*members, site} - {self.colluder}):
            pool = self.keys_pool[member, round]
            if not pool:
                continue
            dealt = pool[-1] if member == site else pool[pick % len(pool)]
            shown[member] = dealt.signed
            if member != site and site in dealt.keys.letters:
                true = dealt.deliveries()[site]
                spoilt = replace(true, letter=replace(true.letter, box=RUBBISH))
                letters[member] = spoilt if rubbish else true
        shown[self.colluder], letter = self._own_keys(site, round)
        if self.colluder in self.agreed.circle(site):
            letters[self.colluder] = Delivered(letter=letter, path=b"")
        request = UpdateRequest(
            study_hash=self.agreed.study_hash,
            round=round,
            participants=tuple(shown[member] for member in sorted(shown)),
            letters=letters,
            model=model,
            configuration=b"",
        )
        masking = self.sites[site].masking
        try:
            masking.begin(request)
            reply = masking.mask(self.sites[site].vector(round), SPEC)
        except ProtocolError:
            return False
        keys = tuple((member, key.public) for member, key in shown.items())
        upload = Upload(site, round, keys, reply)
        self.uploads.append(upload)
        self._open_mask(self.colluder, upload, self.own.key(site))
        self._hear(site, reply.complaints)
        return True

    def _own_keys(self, site: str, round: int) -> tuple[SignedKey, Letter]:
        """The colluding site's key of the round, and its letter to a site, sealed as it expects."""
        public = ExchangeKey(round.to_bytes(32, "big")).public
        study_hash, pending = self.agreed.study_hash, self.sites[site].masking._next
        to = self.own.public(site) if pending is None else pending.opens.public(self.colluder)
        use = seed_use(study_hash, round, self.colluder, site, public)
        letter = Letter(
            commitment=commit_share(use, ANY_SHARE),
            box=seal_box(ANY_SHARE, to=to, use=use, ephemeral=ExchangeKey(os.urandom(32))),
            mask_key=self.own.public(site),
            seed_key=self.own.public(site),
        )
        root = leaf_of(letter, site, to)
        statement = transcript.keys_statement(study_hash, round, self.colluder, public, root)
        signature = self.identity.sign(statement)
        return SignedKey(site=self.colluder, public=public, root=root, signature=signature), letter

    def agree(self, site: str, context: bytes, survivors: tuple[str, ...]) -> bool:
        request = AgreeRequest(
            study_hash=self.agreed.study_hash, round=1, context=context, survivors=survivors
        )
        try:
            reply = self.sites[site].masking.agree(request)
        except ProtocolError:
            return False
        self.signatures[context, survivors][site] = reply.signature
        return True

    def unmask(
        self,
        site: str,
        context: bytes,
        survivors: tuple[str, ...],
        *,
        own: bool = True,
        rubbish: bool = False,
    ) -> bool:
        """Ask for shares, with every true signature there is, the colluder's included.

        With `rubbish` the boxes are others than the survivors sealed, of all uploads ever made.
        """
        signatures = dict(self.signatures[context, survivors])
        if own and self.colluder in survivors:
            statement = transcript.survivors_statement(context, survivors)
            signatures[self.colluder] = self.identity.sign(statement)
        boxes = {
            upload.site: upload.message.boxes[site]
            for upload in self.uploads
            if (rubbish or upload.message.context == context) and site in upload.message.boxes
        }
        if rubbish:
            boxes = dict.fromkeys(boxes, MaskBox(commitment=bytes(32), box=RUBBISH))
        request = UnmaskRequest(
            study_hash=self.agreed.study_hash,
            round=1,
            context=context,
            survivors=survivors,
            signatures=signatures,
            boxes=boxes,
        )
        mine = next(
            (u for u in self.uploads if (u.site, u.message.context) == (site, context)), None
        )
        state = self.sites[site].masking._round
        try:
            reply = self.sites[site].masking.unmask(request)
        except ProtocolError:
            return False
        for owner, share in reply.self_mask_shares.items():
            self.mask_shares[context, owner][site] = share
        publics = dict(mine.keys) if mine else {}
        for owner, share in reply.seed_shares.items():
            self.seed_shares[publics[owner]][site] = share
        self._hear(site, reply.complaints)
        if reply.next_keys is not None and state is not None:
            self._keep_keys(site, reply.next_keys, state.received.seed_keys)
        return True

    # What follows from all that.

    def revealed_sums(self) -> list[tuple[int, frozenset[str]]]:
        """(round, honest sites) of every sum of honest updates that can be computed."""
        by_context: dict[bytes, list[Upload]] = defaultdict(list)
        for upload in self.uploads:
            by_context[upload.message.context].append(upload)
        sums = []
        for context, uploads in by_context.items():
            keys = dict(uploads[0].keys)
            open_keys = {site for site, public in keys.items() if self._key_known(public)}
            hidden = keys.keys() - open_keys - {self.colluder}
            bare = {u.site for u in uploads if self._mask_known(u)}
            groups = [{site} for site in open_keys - {self.colluder}]
            groups += self._joined_by_unknown_masks(hidden)
            sums += [(uploads[0].round, frozenset(group)) for group in groups if group <= bare]
            assert all(dict(upload.keys) == keys for upload in uploads), context
        return sums

    def _joined_by_unknown_masks(self, hidden: Iterable[str]) -> list[set[str]]:
        """The hidden sites, those in one set that share masks nobody knows, directly or not."""
        left, groups = set(hidden), []
        while left:
            group, reached = set(), {min(left)}
            while reached:
                group |= reached
                near = [self.agreed.circle(site) for site in reached]
                reached = (set().union(*near) & left) - group
            left -= group
            groups.append(group)
        return groups

    def _combined(self, shares: dict[str, bytes]) -> bytes | None:
        threshold = self.agreed.sharing_threshold
        if len(shares) < threshold:
            return None
        chosen = sorted(shares)[:threshold]
        return combine({self.agreed.point(holder): shares[holder] for holder in chosen})

    def _mask_known(self, upload: Upload) -> bool:
        context = upload.message.context
        seed = self._combined(self.mask_shares[context, upload.site])
        if seed is None:
            return False
        commitment = transcript.commit_self_mask(context, upload.site, seed)
        assert commitment == upload.message.commitment
        return True

    def _key_known(self, public: bytes) -> bool:
        seed = self._combined(self.seed_shares[public])
        return seed is not None and ExchangeKey(seed).public == public

    def violations(self) -> list[str]:
        """What must never be: a small sum, or one site's update of a round in two sums."""
        least = self.agreed.minimum_sites - self.agreed.collusion
        found = []
        seen: set[tuple[int, str]] = set()
        for round, group in self.revealed_sums():
            if len(group) < least:
                found.append(f"round {round}: a sum over {sorted(group)} alone")
            doubled = {site for site in group if (round, site) in seen}
            if doubled:
                found.append(f"round {round}: {sorted(doubled)} in two sums")
            seen |= {(round, site) for site in group}
        masked = [(upload.round, upload.site) for upload in self.uploads]
        if len(set(masked)) != len(masked):
            found.append("a round was masked twice by one site")
        return found


def part_of(key: ChannelKey, dealer: str) -> PeerKey:
    """What the coordinator shows a dealer of a holder's channel keys."""
    leaves = {peer: transcript.channel_leaf(peer, key.keys[peer]) for peer in sorted(key.keys)}
    paths = dict(zip(leaves, hash_tree.paths(list(leaves.values())), strict=True))
    return PeerKey(
        site=key.site, public=key.keys[dealer], path=paths[dealer], signature=key.signature
    )


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
