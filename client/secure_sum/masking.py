"""The site's half of the secure sum: one method a step, and no step out of turn.

Order: `channel_key`, `round_keys`, then each round `begin`, `mask`, `agree` (malicious profile),
`unmask`. Whatever the coordinator sends is checked against the approved parameters, the roster's
signatures and this site's own memory of the round before anything secret is used.
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
    """State of one site in one run; one call at a time.

    A refusal (`ProtocolError` and its kinds) reveals nothing and leaves the state as it was.
    Secrets of a round are dropped after `unmask`, or when keys for a later round are made;
    Python cannot overwrite memory, so they may linger in freed pages of the process.

    Args:
        site: this site's name in the roster.
        identity: its long-lived key.
        parameters: of the approved study and this run.
        journal: durable memory of masked rounds.
        threads: cores for expanding masks; all that this process may use if None.
        entropy: source of secrets; the operating system's, but in test vectors.

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
        """This site's channel key for the run, the same each time until it restarts.

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
        """Fresh keys for a round, dealt to this site's circle among those with channel keys.

        An unfinished earlier round is given up and its secrets are dropped. While the keys are
        unused a repeated request gets the same answer: a doubled message must not void a round.

        Raises:
            ProtocolError: another study, a round already begun or masked, too few sites, no
                channel key of this site, or another one than it announced.
            AuthenticationError: an unknown site, a wrong signature, or one key twice.
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
        """Check all that a round's opening must satisfy, and enter the round.

        Returns:
            Hash of everything shown to this site, 32 bytes; sites shown anything else differ.

        Raises:
            ProtocolError: another study, a round without fresh keys, too few participants, this
                site's key missing or changed, a share missing.
            AuthenticationError: an unknown site, one key twice, a low-order key, a sealed share
                that does not open with the key shown for its dealer, or a wrong signature.
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
        """Mask the encoded update of the round that has begun; once, ever.

        Args:
            vector: ring elements from `fixed_point.encode`, shape (spec.length,).
            weight: this site's weight, 0 <= weight <= max_weight.
            spec: the approved layout.

        Raises:
            EncodingError: a vector or weight that does not fit the layout, or could wrap.
            ProtocolError: no round has begun, or it was masked before.
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
        """Sign the survivors, once a round.

        Raises:
            ProtocolError: the study has no such step, another round, or survivors that this site
                must not help to open.
        """
        self._check_study(request.study_hash)
        if self.parameters.profile != "malicious":
            raise ProtocolError("the study's profile is semi-honest, which has no agreement step")
        state = self._masked_round(request.context)
        check_survivors(self.parameters, self.site, state, request.survivors)
        state.agreed = request.survivors
        statement = transcript.survivors_statement(request.context, request.survivors)
        return Agreement(
            site=self.site, round=state.round, signature=self._identity.sign(statement)
        )

    def unmask(self, request: UnmaskRequest) -> Unmasked:
        """Reveal what opens the sum over the survivors, and nothing that opens another one.

        Guarantee: for each site either the share of its self mask or that of its round seed is
        revealed, never both. A repeated request gets the same answer.

        Raises:
            ProtocolError: another round, survivors that this site must not help to open, or too
                few signatures on them.
            AuthenticationError: a signature that does not verify.
        """
        self._check_study(request.study_hash)
        done = self._finished
        if done is not None and done.context == request.context:
            if done.survivors != request.survivors:
                raise ProtocolError(f"round {done.reply.round} was unmasked for other survivors")
            return done.reply
        state = self._masked_round(request.context)
        check_survivors(self.parameters, self.site, state, request.survivors)
        if self.parameters.profile == "malicious":
            check_agreement(self.parameters, self.site, state, request)
        reply = self._reveal(state, request)
        self._finished = FinishedRound(
            context=request.context, survivors=request.survivors, reply=reply
        )
        self._round = None
        return reply

    # Steps of the methods above, in the same order.

    def _check_study(self, study_hash: bytes) -> None:
        if study_hash != self.parameters.study_hash:
            raise ProtocolError(
                "the request is bound to other study parameters than this site approved"
            )

    def _circle(self, sites: Iterable[str], do: str) -> list[str]:
        """Those of the sites that share masks and secrets with this one, itself included.

        Raises:
            ProtocolError: too few to open a secret; `do` says what they do.
        """
        circle = [site for site in sites if site in self.parameters.circle(self.site)]
        if len(circle) < self.parameters.sharing_threshold:
            raise ProtocolError(
                f"{len(circle)} sites of this site's circle {do}, and "
                f"{self.parameters.sharing_threshold} are needed to open its secrets"
            )
        return circle

    def _authentic_shares(self, request: UpdateRequest) -> dict[str, bytes]:
        """The seed share of every peer, and with it the proof that the peer's key is its own.

        A peer seals its share together with what it says of its keys, so a share that opens
        authenticates them as its signature would, at a twentieth of the time. Only the keys of
        sites outside the circle, which deal this site nothing, need the signature.
        """
        channels, circle = self._open_channels(), self.parameters.circle(self.site)
        shares = {}
        for member in request.participants:
            if member.site == self.site:
                continue  # this site knows its own key, and the list has it
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
        """A fresh round key from a seed whose shares are sealed to the holders."""
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
                    continue  # the others' shares suffice, or the round is void
        dropped = sorted(circle & state.keys.keys() - set(request.survivors))
        following = state.round + 1
        return Unmasked(
            site=self.site,
            round=state.round,
            self_mask_shares=masks,
            seed_shares={site: state.seed_shares[site] for site in dropped},
            next_keys=self._deal_keys(following) if following <= MAX_ROUND else None,
        )
