"""Phase 1 of a round: channel keys of the run, and every participant's keys of the round.

While no site comes or goes, the keys came with the last round's shares and nothing is asked. A site
that was absent is asked for its channel key; if it has a new one, all sites deal new shares.
"""

from collections.abc import Collection
from dataclasses import replace

from consilium.server.secure_sum.exchange import RoundLog, ask, require_sites
from consilium.server.secure_sum.site_heads import SiteHeads
from consilium.server.secure_sum.sites import Sites
from consilium.shared.crypto import transcript
from consilium.shared.errors import AuthenticationError, ProtocolError, RoundVoidError
from consilium.shared.secure_sum.messages import (
    Action,
    ChannelKey,
    ChannelRequest,
    KeysRequest,
    RoundKeys,
    declared_sizes,
)
from consilium.shared.secure_sum.parameters import SumParameters
from consilium.shared.wire.encoding import MAX_ROUND


class KeyExchange:
    """Public keys and sealed shares that the coordinator has collected.

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
        self._channel_keys: dict[str, ChannelKey] = {}
        self._round_keys: dict[str, RoundKeys] = {}

    def collect(
        self,
        round: int,
        log: RoundLog,
        *,
        rejoin_timeout_s: float,
        asked: Collection[str] | None = None,
    ) -> dict[str, RoundKeys]:
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
        asked = self.parameters.roster.names if asked is None else asked
        missing = [site for site in asked if not self._has_keys(site, round)]
        if missing:
            present, changed = self._collect_channel_keys(missing, log, rejoin_timeout_s)
            self._require(len(self._channel_keys), "announced a channel key", round, log)
            if changed:  # shares are dealt to the holders of channel keys: everyone deals again
                self._round_keys.clear()
            dealing = [site for site in self._channel_keys if site in asked]
            self._collect_round_keys(dealing if changed else present, round, log)
        having = {site for site in asked if self._has_keys(site, round)}
        supported = self.parameters.supported(having)
        self._require(len(supported), "have keys", round, log)
        return {site: self._round_keys[site] for site in sorted(supported)}

    def _has_keys(self, site: str, round: int) -> bool:
        return site in self._round_keys and self._round_keys[site].round == round

    def _collect_channel_keys(
        self, missing: list[str], log: RoundLog, timeout_s: float
    ) -> tuple[list[str], bool]:
        """Return the missing sites that answer, and whether any has a new channel key."""
        request = ChannelRequest(
            study_digest=self.parameters.study_digest,
            run_id=self.parameters.run_id,
            study_hash=self.parameters.study_hash,
            declared=declared_sizes(self.parameters.roster),
        )
        present, changed = [], False
        requests = {site: replace(request, audit_head=self._heads.of(site)) for site in missing}
        replies = ask(self._sites, Action.CHANNEL, requests, ChannelKey, log, timeout_s=timeout_s)
        for site, key in replies:
            statement = transcript.channel_statement(request.study_hash, site, key.public)
            with log.blaming(site):
                self.parameters.roster.verify(site, statement, key.signature, "the channel key")
                self._heads.note(site, key.audit_head)
                key = replace(key, audit_head=b"")
                present.append(site)
                changed = changed or self._channel_keys.get(site) != key
                self._channel_keys[site] = key
        return present, changed

    def _collect_round_keys(self, asked: list[str], round: int, log: RoundLog) -> None:
        announced = tuple(self._channel_keys[site] for site in sorted(self._channel_keys))
        request = KeysRequest(
            study_hash=self.parameters.study_hash, round=round, channel_keys=announced
        )
        requests = dict.fromkeys(asked, request)
        replies = ask(self._sites, Action.KEYS, requests, RoundKeys, log, timeout_s=self._timeout_s)
        for site, keys in replies:
            with log.blaming(site):
                self.keep(site, keys, round)

    def keep(self, site: str, keys: RoundKeys, round: int) -> None:
        """Check a site's keys and take them for the round.

        Raises:
            ProtocolError: another site or round, or shares not dealt to the sites of the run.
            AuthenticationError: a wrong signature, or another site's key.
        """
        holders = self.parameters.circle(site) & self._channel_keys.keys()
        if keys.site != site or keys.round != round:
            raise ProtocolError(f"the keys are of site {keys.site} for round {keys.round}")
        if set(keys.commitments) != holders or set(keys.sealed) != holders - {site}:
            raise ProtocolError("the keys' shares are not dealt to exactly the site's circle")
        statement = transcript.keys_statement(
            self.parameters.study_hash,
            round,
            site,
            keys.public,
            transcript.hash_commitments(keys.commitments),
        )
        self.parameters.roster.verify(site, statement, keys.signature, "the round keys")
        if any(k.public == keys.public for s, k in self._round_keys.items() if s != site):
            raise AuthenticationError("the round key is the same as another site's")
        self._round_keys[site] = keys

    def _require(self, count: int, did: str, round: int, log: RoundLog) -> None:
        least, roster = self.parameters.minimum_sites, self.parameters.roster
        require_sites(count, least, did, round=round, roster=roster, log=log)
