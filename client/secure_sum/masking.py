"""The site's half of the secure sum: one method per step; a step out of order is refused.

Order: `channel_key`, `round_keys`, then in each round `begin`, `mask`, `agree`, `unmask`. Before
anything secret is used, whatever the coordinator sends is checked against the approved parameters,
the roster's signatures and this site's own memory of the round.
"""

import os
from collections.abc import Iterable
from functools import partial

import numpy as np
from numpy.typing import NDArray

from consilium.client.secure_sum.channels import Channels, bound_to, check_members
from consilium.client.secure_sum.journal import RoundJournal
from consilium.client.secure_sum.round_state import (
    FinishedRound,
    MaskedRound,
    PendingKeys,
    check_agreement,
    check_survivors,
    check_vector,
    pair_seeds,
)
from consilium.shared.crypto import transcript
from consilium.shared.crypto.keys import Entropy, ExchangeKey, IdentityKey, Secret
from consilium.shared.crypto.keystream import add_masks
from consilium.shared.errors import ProtocolError, StudyError
from consilium.shared.secure_sum.fixed_point import VectorSpec
from consilium.shared.secure_sum.messages import (
    Agreement,
    AgreeRequest,
    ChannelKey,
    ChannelRequest,
    KeysRequest,
    MaskedUpdate,
    RoundKeys,
    Unmasked,
    UnmaskRequest,
    UpdateRequest,
)
from consilium.shared.secure_sum.packing import pack
from consilium.shared.secure_sum.parameters import SumParameters
from consilium.shared.secure_sum.secret_sharing import SECRET_BYTES
from consilium.shared.wire.encoding import MAX_ROUND


class SiteMasking(Secret):
    """State of one site in one run; not safe for concurrent calls.

    A refusal (`ProtocolError` and its subclasses) reveals nothing and leaves the state unchanged.
    Secrets of a round are dropped after `unmask`, or when keys for a later round are made;
    Python cannot overwrite memory, so they may linger in freed pages of the process.

    Args:
        site: this site's name in the roster.
        identity: its long-lived key.
        parameters: the parameters of the approved study and this run.
        journal: durable memory of masked rounds.
        threads: threads for expanding masks; None means all cores that this process may use.
        entropy: source of secrets; the operating system's, except for test vectors.

    Raises:
        StudyError: the site is not in the roster under this identity.
    """

    def __init__(
        self,
        site: str,
        identity: IdentityKey,
        parameters: SumParameters,
        journal: RoundJournal,
        *,
        threads: int | None = None,
        entropy: Entropy = os.urandom,
    ) -> None:
        if (site, identity.public) not in parameters.roster.members:
            raise StudyError(
                f"the study's roster does not list site {site} with this site's identity; "
                "send the coordinator the public identity and ask for a corrected study"
            )
        self.site = site
        self.parameters = parameters
        self._identity = identity
        self._journal = journal
        self._threads = threads or len(os.sched_getaffinity(0))
        self._entropy = entropy
        self._channels: Channels | None = None
        self._next: PendingKeys | None = None
        self._dealt: tuple[KeysRequest, RoundKeys] | None = None
        self._round: MaskedRound | None = None
        self._finished: FinishedRound | None = None

    def channel_key(self, request: ChannelRequest) -> ChannelKey:
        """Return this site's channel key for the run; it stays the same until the site restarts.

        Raises:
            ProtocolError: the request is for another study, run or parameters.
        """
        asked = (request.study_digest, request.run_id)
        if asked != (self.parameters.study_digest, self.parameters.run_id):
            raise ProtocolError("the channel request is for another study or run than this one")
        self._check_study(request.study_hash)
        if self._channels is None:
            self._channels = Channels(self.site, self.parameters, self._entropy)
        public = self._channels.public
        statement = transcript.channel_statement(request.study_hash, self.site, public)
        return ChannelKey(site=self.site, public=public, signature=self._identity.sign(statement))

    def round_keys(self, request: KeysRequest) -> RoundKeys:
        """Make keys for a round; deal their seed's shares to the circle's sites with channel keys.

        An unfinished earlier round is abandoned and its secrets are dropped. Until the keys are
        used, a repeated request gets the same answer: a duplicated message must not void a round.

        Raises:
            ProtocolError: another study, a round already begun or masked, too few sites, or this
                site's channel key is missing or not the one that it announced.
            AuthenticationError: an unknown site, a wrong signature, or two sites with one key.
        """
        self._check_study(request.study_hash)
        self._check_unmasked(request.round)
        if self._round is not None and request.round <= self._round.round:
            raise ProtocolError(
                f"round {self._round.round} has begun, so its keys cannot be replaced"
            )
        if self._dealt is not None:
            asked, reply = self._dealt
            if asked == request:
                return reply
        channels = self._open_channels()
        channels.open(request.channel_keys)
        self._circle(channels.holders, "announced a channel key")
        self._round = self._finished = self._dealt = None
        reply = self._deal_keys(request.round)
        self._dealt = request, reply
        return reply

    def begin(self, request: UpdateRequest) -> bytes:
        """Check the request that opens a round, and enter the round.

        Returns:
            Hash (32 bytes) of everything that this site was shown; it differs from that of a site
            that was shown anything else.

        Raises:
            ProtocolError: another study, a round without fresh keys, too few participants, this
                site's key missing or changed, or a share missing.
            AuthenticationError: an unknown site, two sites with one key, a low-order key, a sealed
                share that does not open with the key shown for its dealer, or a wrong signature.
        """
        self._check_study(request.study_hash)
        self._check_unmasked(request.round)
        if self._next is None or self._next.round != request.round:
            raise ProtocolError(f"this site has no unused keys for round {request.round}")
        keys = {member.site: member.public for member in request.participants}
        exchange = self._next.exchange
        check_members(self.parameters, keys, self.site, exchange.public, f"round {request.round}")
        shares = self._authentic_shares(request)
        circle = self._circle(keys, f"take part in round {request.round}")
        begun = transcript.begun_context(
            request.study_hash, request.round, request.model, request.configuration, keys
        )
        self._round = MaskedRound(
            round=request.round,
            pair_secrets={
                peer: exchange.shared_secret(keys[peer]) for peer in circle if peer != self.site
            },
            keys=keys,
            begun=begun,
            seed_shares=shares,
        )
        self._next = self._finished = self._dealt = None
        return begun

    def mask(self, vector: NDArray[np.uint32], weight: int, spec: VectorSpec) -> MaskedUpdate:
        """Mask the encoded update of the current round; possible once per round, for good.

        Args:
            vector: ring elements from `fixed_point.encode`, shape (spec.length,).
            weight: this site's weight, 0 <= weight <= max_weight.
            spec: the approved layout.

        Raises:
            EncodingError: a vector or weight that does not fit the layout, or a sum that could
                wrap.
            ProtocolError: no round has begun, or an update was masked for it before.
        """
        state = self._round
        if state is None or state.context is not None:
            raise ProtocolError("no round has begun that is still to be masked")
        tailed = check_vector(self.parameters, vector, weight, spec)
        self._journal.claim(self.parameters.study_hash, state.round)
        context = transcript.round_context(state.begun, spec.digest)
        seed = self._entropy(SECRET_BYTES)
        plus, minus = pair_seeds(self.parameters, self.site, state, context)
        add_masks(tailed, plus=[seed, *plus], minus=minus, threads=self._threads)
        channels = self._open_channels()
        holders = sorted([self.site, *state.seed_shares])
        shares = channels.split(seed, holders)
        state.context, state.mask_share = context, shares[self.site]
        commit = partial(transcript.commit_mask_share, context, self.site)
        return MaskedUpdate(
            site=self.site,
            round=state.round,
            context=context,
            packed=pack(tailed, spec.ring_bits),
            commitment=transcript.commit_self_mask(context, self.site, seed),
            share_commitments={holder: commit(holder, share) for holder, share in shares.items()},
            sealed=channels.seal("mask", state.round, context, shares),
            audit_head=b"",
        )

    def agree(self, request: AgreeRequest) -> Agreement:
        """Sign the list of survivors; one list per round.

        Raises:
            ProtocolError: another study or round, or survivors whose sum this site must not help to
                open.
        """
        self._check_study(request.study_hash)
        state = self._masked_round(request.context)
        check_survivors(self.parameters, self.site, state, request.survivors)
        state.agreed = request.survivors
        statement = transcript.survivors_statement(request.context, request.survivors)
        return Agreement(
            site=self.site, round=state.round, signature=self._identity.sign(statement)
        )

    def unmask(self, request: UnmaskRequest) -> Unmasked:
        """Reveal the shares that open the sum over the survivors, and none that opens another sum.

        Guarantee: for each site, either the share of its self mask or that of its round seed is
        revealed, never both. A repeated request gets the same answer.

        Raises:
            ProtocolError: another round, survivors whose sum this site must not help to open, or
                too few signatures on their list.
            AuthenticationError: a signature does not verify.
        """
        self._check_study(request.study_hash)
        done = self._finished
        if done is not None and done.context == request.context:
            if done.survivors != request.survivors:
                raise ProtocolError(f"round {done.reply.round} was unmasked for other survivors")
            return done.reply
        state = self._masked_round(request.context)
        check_survivors(self.parameters, self.site, state, request.survivors)
        check_agreement(self.parameters, self.site, state, request)
        reply = self._reveal(state, request)
        self._finished = FinishedRound(
            context=request.context, survivors=request.survivors, reply=reply
        )
        self._round = None
        return reply

    # Parts of the methods above, in the same order.

    def _check_study(self, study_hash: bytes) -> None:
        if study_hash != self.parameters.study_hash:
            raise ProtocolError(
                "the request is bound to other study parameters than this site approved"
            )

    def _circle(self, sites: Iterable[str], do: str) -> list[str]:
        """Return those of the sites that share masks and secrets with this one, itself included.

        Raises:
            ProtocolError: too few to open a secret; `do` is the sentence's verb.
        """
        circle = [site for site in sites if site in self.parameters.circle(self.site)]
        if len(circle) < self.parameters.sharing_threshold:
            raise ProtocolError(
                f"{len(circle)} sites of this site's circle {do}, and "
                f"{self.parameters.sharing_threshold} are needed to open its secrets"
            )
        return circle

    def _authentic_shares(self, request: UpdateRequest) -> dict[str, bytes]:
        """Return the seed share of every peer, and check every participant's keys.

        A peer's share is sealed together with the peer's statement of its keys, so a share that
        opens authenticates the keys as a signature would, in a twentieth of the time. Only sites
        outside the circle, which deal this site no share, need their signature verified.
        """
        channels, circle = self._open_channels(), self.parameters.circle(self.site)
        shares = {}
        for member in request.participants:
            if member.site == self.site:
                continue  # this site's own key, already found in the list
            statement = transcript.keys_statement(
                request.study_hash,
                request.round,
                member.site,
                member.public,
                member.commitments_hash,
            )
            if member.site in circle:
                shares[member.site] = channels.open_share(
                    "seed", member.site, request.round, bound_to(statement), request.sealed
                )
            else:
                self.parameters.roster.verify(
                    member.site, statement, member.signature, f"the keys of round {request.round}"
                )
        return shares

    def _check_unmasked(self, round: int) -> None:
        highest = self._journal.highest(self.parameters.study_hash)
        if round <= highest:
            raise ProtocolError(f"round {round} is not above round {highest}, masked before")

    def _open_channels(self) -> Channels:
        if self._channels is None:
            raise ProtocolError("this site has announced no channel key in this run; ask for it")
        return self._channels

    def _deal_keys(self, round: int) -> RoundKeys:
        """Make a round key from a fresh seed, whose shares are sealed for the holders."""
        seed = self._entropy(SECRET_BYTES)
        exchange = ExchangeKey(seed)
        channels = self._open_channels()
        shares = channels.split(seed, channels.holders)
        study_hash = self.parameters.study_hash
        commitments = {
            holder: transcript.commit_seed_share(study_hash, round, self.site, holder, share)
            for holder, share in shares.items()
        }
        self._next = PendingKeys(round=round, exchange=exchange)
        statement = transcript.keys_statement(
            study_hash, round, self.site, exchange.public, transcript.hash_commitments(commitments)
        )
        return RoundKeys(
            site=self.site,
            round=round,
            public=exchange.public,
            commitments=commitments,
            sealed=channels.seal("seed", round, bound_to(statement), shares),
            signature=self._identity.sign(statement),
        )

    def _masked_round(self, context: bytes) -> MaskedRound:
        state = self._round
        if state is None or state.context is None or state.context != context:
            raise ProtocolError("the request is not for the round this site has masked last")
        return state

    def _reveal(self, state: MaskedRound, request: UnmaskRequest) -> Unmasked:
        channels = self._open_channels()
        circle = self.parameters.circle(self.site)
        masks = {self.site: state.mask_share}
        for survivor in circle & set(request.survivors):
            if survivor != self.site:
                try:
                    masks[survivor] = channels.open_share(
                        "mask", survivor, state.round, request.context, request.sealed
                    )
                except ProtocolError:
                    continue  # the other sites' shares suffice, or the round is void
        dropped = sorted(circle & state.keys.keys() - set(request.survivors))
        following = state.round + 1
        return Unmasked(
            site=self.site,
            round=state.round,
            self_mask_shares=masks,
            seed_shares={site: state.seed_shares[site] for site in dropped},
            next_keys=self._deal_keys(following) if following <= MAX_ROUND else None,
        )
