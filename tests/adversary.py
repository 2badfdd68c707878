"""A coordinator that lies at will, with one site on its side, and what it can compute.

The adversary holds everything honest sites ever sent, opens every share sealed to its own site,
signs as that site, and may show each honest site anything. `revealed_sums` says which sums of
honest updates follow from all that: it rebuilds every secret for which it holds enough shares,
takes known masks off, and keeps what no unknown mask covers.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from consilium.shared.crypto import transcript
from consilium.shared.crypto.keys import ExchangeKey
from consilium.shared.errors import ProtocolError
from consilium.shared.secure_sum.messages import (
    AgreeRequest,
    ChannelKey,
    ChannelRequest,
    KeysRequest,
    MaskedUpdate,
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
        self.keys_pool: dict[tuple[str, int], list[RoundKeys]] = defaultdict(list)
        self.seed_shares: dict[bytes, dict[str, bytes]] = defaultdict(dict)
        self.mask_shares: dict[tuple[bytes, str], dict[str, bytes]] = defaultdict(dict)
        self.signatures: dict[tuple[bytes, tuple[str, ...]], dict[str, bytes]] = defaultdict(dict)
        self.uploads: list[Upload] = []
        for site in self.sites:
            self.channel(site)
        self.own = self.sites[self.colluder].masking._channels
        self.own.open([pool[-1] for pool in self.channel_pool.values()])

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
        """Ask for round keys, showing of every other site the channel key picked."""
        announced = [pool[pick % len(pool)] for pool in self.channel_pool.values()]
        own = next(i for i, key in enumerate(announced) if key.site == site)
        announced[own] = self.channel_pool[site][-1]
        request = KeysRequest(
            study_hash=self.agreed.study_hash, round=round, channel_keys=tuple(announced)
        )
        try:
            self._keep_keys(site, self.sites[site].masking.round_keys(request))
        except ProtocolError:
            return False
        return True

    def _keep_keys(self, site: str, keys: RoundKeys) -> None:
        self.keys_pool[site, keys.round].append(keys)
        said = transcript.sha256(
            transcript.keys_statement(
                self.agreed.study_hash,
                keys.round,
                site,
                keys.public,
                transcript.hash_commitments(keys.commitments),
            )
        )
        self._open("seed", site, keys.round, said, keys.sealed, self.seed_shares[keys.public])

    def _open(self, kind, dealer, round, context, sealed, into) -> None:
        self.own.open([pool[-1] for pool in self.channel_pool.values()])
        try:
            into[self.colluder] = self.own.open_share(
                kind, dealer, round, context, {dealer: sealed[self.colluder]}
            )
        except (ProtocolError, KeyError):
            return

    def update(
        self, site: str, round: int, members: Iterable[str], model: bytes, pick: int = -1
    ) -> bool:
        """Ask for an update among these members, with the picked key of each."""
        shown, sealed = {}, {}
        for member in sorted({*members, site} - {self.colluder}):
            pool = self.keys_pool[member, round]
            if not pool:
                continue
            keys = pool[-1] if member == site else pool[pick % len(pool)]
            shown[member] = SignedKey(
                site=member,
                public=keys.public,
                commitments_hash=transcript.hash_commitments(keys.commitments),
                signature=keys.signature,
            )
            if member != site and site in keys.sealed:
                sealed[member] = keys.sealed[site]
        shown[self.colluder] = self._own_key(round)
        self.own.open([pool[-1] for pool in self.channel_pool.values()])
        if site in self.own.holders:
            said = transcript.sha256(self._own_statement(round))
            sealed[self.colluder] = self.own.seal("seed", round, said, {site: ANY_SHARE})[site]
        request = UpdateRequest(
            study_hash=self.agreed.study_hash,
            round=round,
            participants=tuple(shown[member] for member in sorted(shown)),
            sealed=sealed,
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
        self.uploads.append(Upload(site, round, keys, reply))
        into = self.mask_shares[reply.context, site]
        self._open("mask", site, round, reply.context, reply.sealed, into)
        return True

    def _own_statement(self, round: int) -> bytes:
        public = ExchangeKey(round.to_bytes(32, "big")).public
        return transcript.keys_statement(
            self.agreed.study_hash, round, self.colluder, public, bytes(32)
        )

    def _own_key(self, round: int) -> SignedKey:
        return SignedKey(
            site=self.colluder,
            public=ExchangeKey(round.to_bytes(32, "big")).public,
            commitments_hash=bytes(32),
            signature=self.identity.sign(self._own_statement(round)),
        )

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
        self, site: str, context: bytes, survivors: tuple[str, ...], *, own: bool = True
    ) -> bool:
        """Ask for shares, with every true signature there is, the colluder's included."""
        signatures = dict(self.signatures[context, survivors])
        if own and self.colluder in survivors:
            statement = transcript.survivors_statement(context, survivors)
            signatures[self.colluder] = self.identity.sign(statement)
        sealed = {
            upload.site: upload.message.sealed[site]
            for upload in self.uploads
            if upload.message.context == context and site in upload.message.sealed
        }
        request = UnmaskRequest(
            study_hash=self.agreed.study_hash,
            round=1,
            context=context,
            survivors=survivors,
            signatures=signatures,
            sealed=sealed,
        )
        mine = next(
            (u for u in self.uploads if (u.site, u.message.context) == (site, context)), None
        )
        try:
            reply = self.sites[site].masking.unmask(request)
        except ProtocolError:
            return False
        for owner, share in reply.self_mask_shares.items():
            self.mask_shares[context, owner][site] = share
        publics = dict(mine.keys) if mine else {}
        for owner, share in reply.seed_shares.items():
            self.seed_shares[publics[owner]][site] = share
        if reply.next_keys is not None:
            self._keep_keys(site, reply.next_keys)
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
