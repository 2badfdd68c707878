"""Phase 1 of a round: every participant's keys of the round, checked before anybody sees them.

While no site comes or goes, the keys came with the last round's shares and nothing is asked. When a
site that was absent answers again, all sites announce fresh channel keys and deal anew.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace

from consilium.server.secure_sum.exchange import RoundLog, ask, require_sites
from consilium.server.secure_sum.site_heads import SiteHeads
from consilium.server.secure_sum.sites import Sites
from consilium.shared.crypto import hash_tree, transcript
from consilium.shared.crypto.keys import is_low_order
from consilium.shared.errors import AuthenticationError, ProtocolError, RoundVoidError
from consilium.shared.secure_sum.messages import (
    Action,
    ChannelKey,
    ChannelRequest,
    Delivered,
    KeysRequest,
    PeerKey,
    RoundKeys,
    SignedKey,
    declared_sizes,
)
from consilium.shared.secure_sum.parameters import SumParameters
from consilium.shared.wire.encoding import MAX_ROUND


@dataclass(frozen=True, kw_only=True)
class Dealt:
    """A site's keys for a round, as checked.

    Attributes:
        keys: what the site sent.
        to: by holder, the key that its letter's box is sealed to.
        leaves: by holder, the leaf of its letter; of the hash tree that the site signed.
        root: of that tree, 32 bytes.
    """

    keys: RoundKeys
    to: Mapping[str, bytes]
    leaves: Mapping[str, bytes]
    root: bytes

    @property
    def signed(self) -> SignedKey:
        """What every participant sees of it."""
        keys = self.keys
        return SignedKey(
            site=keys.site, public=keys.public, root=self.root, signature=keys.signature
        )

    def deliveries(self) -> dict[str, Delivered]:
        """By holder, its letter with the path to the root."""
        found = hash_tree.paths(list(self.leaves.values()))
        paths = dict(zip(self.leaves, found, strict=True))
        letters = self.keys.letters
        return {holder: Delivered(letter=letters[holder], path=paths[holder]) for holder in letters}

    def commitment(self, holder: str) -> bytes | None:
        """The commitment to a holder's share of the site's seed; None if it was dealt none."""
        if holder == self.keys.site:
            return self.keys.own_commitment
        letter = self.keys.letters.get(holder)
        return None if letter is None else letter.commitment


class KeyExchange:
    """Public keys and boxes that the coordinator has collected.

    Args:
        parameters: of the run.
        sites: how to reach the sites.
        timeout_s: longest wait for round keys, in seconds.
        heads: the sites' newest audit heads; shown to each site, and brought up to date by it.
    """

    def __init__(
        self, parameters: SumParameters, sites: Sites, *, timeout_s: float, heads: SiteHeads
    ) -> None:
        self.parameters = parameters
        self._sites = sites
        self._heads = heads
        self._timeout_s = timeout_s
        self._dealt: dict[str, Dealt] = {}
        self._owners: dict[int, dict[bytes, str]] = {}  # who announced a key, by round
        self._expelled: dict[str, str] = {}

    def expel(self, site: str, why: str) -> None:
        """Take a site out of the run: it is proved to have dealt what it did not commit to."""
        self._expelled.setdefault(site, f"taken out of this run: {why}")

    def collect(
        self,
        round: int,
        log: RoundLog,
        *,
        rejoin_timeout_s: float,
        asked: Collection[str] | None = None,
    ) -> dict[str, Dealt]:
        """Every participant's keys for the round, asking the sites that have none yet.

        A site whose circle has too few sites present does not take part in the round.

        Args:
            round: the round's number.
            log: takes what goes wrong.
            rejoin_timeout_s: longest wait for a channel key, in seconds.
            asked: the sites to ask; all of the roster if None.

        Raises:
            RoundVoidError: fewer than `minimum_sites` have keys.
        """
        if not 1 <= round <= MAX_ROUND:
            raise RoundVoidError(f"the round number {round} is not between 1 and {MAX_ROUND}")
        log.refusals |= self._expelled
        asked = self.parameters.roster.names if asked is None else asked
        welcome = [site for site in asked if site not in self._expelled]
        missing = [site for site in welcome if not self._has_keys(site, round)]
        if missing:
            announced = self._announced(missing, round, log, rejoin_timeout_s)
            if announced and (others := [site for site in welcome if site not in missing]):
                announced |= self._announced(others, round, log, rejoin_timeout_s)
            if announced or len(missing) == len(welcome):
                self._require(announced, "announced a channel key", round, log)
                self._dealt.clear()
                self._deal(announced, round, log)
        supported = self.parameters.supported(
            [site for site in welcome if self._has_keys(site, round)]
        )
        self._require(supported, "have keys", round, log)
        return {site: self._dealt[site] for site in sorted(supported)}

    def keep(self, site: str, keys: RoundKeys, round: int, to: Mapping[str, bytes]) -> None:
        """Check a site's keys and take them for the round.

        Args:
            site: which sent them.
            keys: what it sent.
            round: for which they must be.
            to: by holder to whom it must have dealt a share, the key to seal it to.

        Raises:
            ProtocolError: another site or round, or shares not dealt to these holders.
            AuthenticationError: a wrong signature, also because a letter's box is sealed to another
                key; a key of low order or another site's.
        """
        if keys.site != site or keys.round != round:
            raise ProtocolError(f"the keys are of site {keys.site} for round {keys.round}")
        if keys.letters.keys() != to.keys():
            raise ProtocolError("the keys' shares are not dealt to exactly the site's circle")
        leaves = _leaves(keys, to)
        root = hash_tree.root(list(leaves.values()))
        statement = transcript.keys_statement(
            self.parameters.study_hash, round, site, keys.public, root
        )
        self.parameters.roster.verify(site, statement, keys.signature, "the round keys")
        letters = keys.letters.values()
        for_boxes = [key for letter in letters for key in (letter.mask_key, letter.seed_key)]
        self._claim(site, [keys.public, *for_boxes], round)
        self._dealt[site] = Dealt(keys=keys, to=to, leaves=leaves, root=root)

    def _has_keys(self, site: str, round: int) -> bool:
        return site in self._dealt and self._dealt[site].keys.round == round

    def _announced(
        self, asked: list[str], round: int, log: RoundLog, timeout_s: float
    ) -> dict[str, ChannelKey]:
        """The channel keys of those asked that answer."""
        study_hash = self.parameters.study_hash
        request = ChannelRequest(
            study_digest=self.parameters.study_digest,
            run_id=self.parameters.run_id,
            study_hash=study_hash,
            declared=declared_sizes(self.parameters.roster),
        )
        requests = {site: replace(request, audit_head=self._heads.of(site)) for site in asked}
        present = {}
        replies = ask(self._sites, Action.CHANNEL, requests, ChannelKey, log, timeout_s=timeout_s)
        for site, key in replies:
            with log.blaming(site):
                if key.keys.keys() != self.parameters.circle(site) - {site}:
                    raise ProtocolError("the channel keys are not for exactly the site's circle")
                root = hash_tree.root(list(_channel_leaves(key).values()))
                statement = transcript.channel_statement(study_hash, site, root)
                self.parameters.roster.verify(site, statement, key.signature, "the channel key")
                self._heads.note(site, key.audit_head)
                self._claim(site, key.keys.values(), round)
                present[site] = key
        return present

    def _deal(self, announced: Mapping[str, ChannelKey], round: int, log: RoundLog) -> None:
        """Ask those that announced a channel key to deal to each other."""
        parts: dict[str, list[PeerKey]] = {site: [] for site in announced}
        for holder in sorted(announced):
            key, leaves = announced[holder], _channel_leaves(announced[holder])
            paths = hash_tree.paths(list(leaves.values()))
            for dealer, path in zip(leaves, paths, strict=True):
                if dealer in parts:
                    part = PeerKey(
                        site=holder, public=key.keys[dealer], path=path, signature=key.signature
                    )
                    parts[dealer].append(part)
        study_hash = self.parameters.study_hash
        requests = {
            dealer: KeysRequest(study_hash=study_hash, round=round, channel_keys=tuple(keys))
            for dealer, keys in parts.items()
        }
        replies = ask(self._sites, Action.KEYS, requests, RoundKeys, log, timeout_s=self._timeout_s)
        for site, keys in replies:
            with log.blaming(site):
                to = {part.site: part.public for part in parts[site]}
                self.keep(site, keys, round, to)

    def _claim(self, site: str, keys: Iterable[bytes], round: int) -> None:
        """Note that a site has announced these keys, if they can be its own.

        A key is shown to others only after it was noted here, so whoever comes with a key that is
        noted of another site has copied it.

        Raises:
            AuthenticationError: a key of low order, or one that another site announced in this or
                the last round.
        """
        for old in [old for old in self._owners if old < round - 1]:
            del self._owners[old]
        mine = dict.fromkeys(keys, site)
        for key in mine:
            if is_low_order(key):
                raise AuthenticationError(
                    f"a key of {site} is a low-order point, which no honest site makes"
                )
            for owners in self._owners.values():
                if (owner := owners.get(key, site)) != site:
                    raise AuthenticationError(
                        f"a key of {site} is a copy of one that {owner} announced before"
                    )
        self._owners.setdefault(round, {}).update(mine)

    def _require(self, done: Collection[str], did: str, round: int, log: RoundLog) -> None:
        least, roster = self.parameters.minimum_sites, self.parameters.roster
        require_sites(len(done), least, did, round=round, roster=roster, log=log)


def _channel_leaves(key: ChannelKey) -> dict[str, bytes]:
    """By dealer in sorted order, the leaf of the key for it."""
    return {
        dealer: transcript.channel_leaf(dealer, key.keys[dealer]) for dealer in sorted(key.keys)
    }


def _leaves(keys: RoundKeys, to: Mapping[str, bytes]) -> dict[str, bytes]:
    """By holder in sorted order, the leaf of the site's letter to it, its own share among them."""
    leaves = {}
    for holder in sorted([*keys.letters, keys.site]):
        if holder == keys.site:
            leaves[holder] = transcript.own_leaf(holder, keys.own_commitment)
            continue
        letter = keys.letters[holder]
        leaves[holder] = transcript.letter_leaf(
            holder, to[holder], letter.commitment, letter.box, letter.mask_key, letter.seed_key
        )
    return leaves
