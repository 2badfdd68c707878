"""The site's half of the secure sum: one method per step; a step out of order is refused.

Order: `channel_key`, `round_keys`, then in each round `begin`, `mask`, `agree`, `unmask`. Before
anything secret is used, whatever the coordinator sends is checked against the approved parameters,
the roster's signatures and this site's own memory of the round.
"""

import os
from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from consilium.client.secure_sum.journal import RoundJournal
from consilium.client.secure_sum.letters import (
    Member,
    announce,
    deal_keys,
    deal_mask,
    peers_keys,
    read_letters,
    read_mask_boxes,
)
from consilium.client.secure_sum.round_state import (
    FinishedRound,
    MaskedRound,
    PendingKeys,
    check_agreement,
    check_members,
    check_survivors,
    check_vector,
    pair_seeds,
)
from consilium.shared.crypto import transcript
from consilium.shared.crypto.boxes import BoxKeys
from consilium.shared.crypto.keys import Entropy, IdentityKey, Secret
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
    Secrets of a round are dropped as soon as no step needs them: keys that open boxes when the
    boxes are opened, pair secrets when the update is masked, the rest after `unmask` or when keys
    for a later round are made. Python cannot overwrite memory, so they may linger in freed pages of
    the process.

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
        self._me = Member(site, identity, parameters, entropy)
        self._journal = journal
        self._threads = threads or len(os.sched_getaffinity(0))
        self._channel: tuple[BoxKeys, ChannelKey] | None = None
        self._next: PendingKeys | None = None
        self._dealt: tuple[KeysRequest, RoundKeys] | None = None
        self._round: MaskedRound | None = None
        self._finished: FinishedRound | None = None

    def channel_key(self, request: ChannelRequest) -> ChannelKey:
        """Announce keys to which the peers shall seal their next shares for this site.

        They stay the same until a round has begun with them: a duplicated request must not void a
        round. They are then forgotten, and the next request gets fresh ones.

        Raises:
            ProtocolError: the request is for another study, run or parameters.
        """
        asked = (request.study_digest, request.run_id)
        if asked != (self.parameters.study_digest, self.parameters.run_id):
            raise ProtocolError("the channel request is for another study or run than this one")
        self._check_study(request.study_hash)
        if self._channel is None:
            keys = BoxKeys(self._me.entropy(SECRET_BYTES))
            self._channel = keys, announce(self._me, keys)
        return self._channel[1]

    def round_keys(self, request: KeysRequest) -> RoundKeys:
        """Make keys for a round; deal their seed's shares to peers with a channel key.

        An unfinished earlier round is abandoned and its secrets are dropped. Until the keys are
        used, a repeated request gets the same answer: a duplicated message must not void a round.

        Raises:
            ProtocolError: another study, a round already begun or masked, too few sites, one
                outside the circle, or this site has announced no channel key.
            AuthenticationError: an unknown site, a wrong signature, or a key of low order.
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
        if self._channel is None:
            raise ProtocolError("this site has announced no channel key for this round; ask for it")
        keys = peers_keys(self._me, request)
        self._circle([self.site, *keys], "announced a channel key")
        self._round = self._finished = self._dealt = None
        reply = self._deal_keys(request.round, keys, opens=self._channel[0])
        self._dealt = request, reply
        return reply

    def begin(self, request: UpdateRequest) -> bytes:
        """Check the request that opens a round, and enter the round.

        Returns:
            Hash (32 bytes) of everything that this site was shown; it differs from that of a site
            that was shown anything else.

        Raises:
            ProtocolError: another study, a round without fresh keys, too few participants, this
                site's key missing or changed, or a letter missing.
            AuthenticationError: an unknown site, two sites with one key, a low-order key, a wrong
                signature, or a letter that its sender did not write.
        """
        self._check_study(request.study_hash)
        self._check_unmasked(request.round)
        if self._next is None or self._next.round != request.round:
            raise ProtocolError(f"this site has no unused keys for round {request.round}")
        keys = {member.site: member.public for member in request.participants}
        pending, exchange = self._next, self._next.dealt.exchange
        check_members(self.parameters, keys, self.site, exchange.public, f"round {request.round}")
        received = read_letters(self._me, request, pending.opens)
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
            received=received,
            masks=pending.dealt.masks,
            following=pending.dealt.following,
        )
        self._next = self._finished = self._dealt = self._channel = None
        return begun

    def mask(self, vector: NDArray[np.uint32], spec: VectorSpec) -> MaskedUpdate:
        """Mask the encoded update of the current round; possible once per round, for good.

        Args:
            vector: ring elements from `fixed_point.encode`, shape (spec.length,).
            spec: the approved layout.

        Raises:
            EncodingError: a vector that does not fit the layout, or a sum that could wrap.
            ProtocolError: no round has begun, or an update was masked for it before.
        """
        state = self._round
        if state is None or state.context is not None:
            raise ProtocolError("no round has begun that is still to be masked")
        tailed = check_vector(self.parameters, self.site, vector, spec)
        self._journal.claim(self.parameters.study_hash, state.round)
        context = transcript.round_context(state.begun, spec.digest)
        seed = self._me.entropy(SECRET_BYTES)
        plus, minus = pair_seeds(self.parameters, self.site, state, context)
        add_masks(tailed, plus=[seed, *plus], minus=minus, threads=self._threads)
        state.pair_secrets = {}
        state.mask_share, update = deal_mask(
            self._me, state.round, context, seed, state.received.mask_keys
        )
        state.context = context
        return replace(
            update, packed=pack(tailed, spec.ring_bits), complaints=state.received.complaints
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
            site=self.site, round=state.round, signature=self._me.identity.sign(statement)
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
                "the request is bound to other study parameters than this site approved; both "
                "sides need the same study, declared sizes and release"
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

    def _check_unmasked(self, round: int) -> None:
        highest = self._journal.highest(self.parameters.study_hash)
        if round <= highest:
            raise ProtocolError(
                f"round {round} is not above round {highest}, masked before", case="masked-before"
            )

    def _deal_keys(self, round: int, to: Mapping[str, bytes], *, opens: BoxKeys) -> RoundKeys:
        """Make and deal keys; `opens` are the keys for the boxes that the others deal meanwhile."""
        dealt = deal_keys(self._me, round, to)
        self._next = PendingKeys(round=round, dealt=dealt, opens=opens)
        return dealt.message

    def _masked_round(self, context: bytes) -> MaskedRound:
        state = self._round
        if state is None or state.context is None or state.context != context:
            raise ProtocolError("the request is not for the round this site has masked last")
        return state

    def _reveal(self, state: MaskedRound, request: UnmaskRequest) -> Unmasked:
        masks, complaints = read_mask_boxes(self._me, state.round, request, state.masks)
        circle, seeds = self.parameters.circle(self.site), state.received.seed_shares
        dropped = sorted(circle & state.keys.keys() - set(request.survivors))
        following, keys = state.round + 1, None
        if following <= MAX_ROUND:
            keys = self._deal_keys(following, state.received.seed_keys, opens=state.following)
        return Unmasked(
            site=self.site,
            round=state.round,
            self_mask_shares={self.site: state.mask_share, **masks},
            seed_shares={site: seeds[site] for site in dropped if site in seeds},
            complaints=complaints,
            next_keys=keys,
        )
