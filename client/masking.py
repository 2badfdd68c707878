"""The site's half of the secure sum: one method a step, and no step out of turn.

Order: `channel_key`, `round_keys`, then each round `begin`, `mask`, `agree` (malicious profile),
`unmask`. Whatever the coordinator sends is checked against the approved parameters, the roster's
signatures and this site's own memory of the round before anything secret is used.
"""

# ruff: noqa: A002 - the protocol's word for a round's number is round

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from client.journal import RoundJournal
from shared import transcript
from shared.errors import AuthenticationError, EncodingError, ProtocolError, StudyError
from shared.fixed_point import VectorSpec
from shared.keys import (
    NONCE_BYTES,
    Entropy,
    ExchangeKey,
    IdentityKey,
    Secret,
    channel_key,
    open_sealed,
    pair_seed,
    seal,
    seal_context,
)
from shared.masks import add_masks
from shared.messages import (
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
from shared.packing import pack
from shared.secret_sharing import SECRET_BYTES, read_share, split
from shared.sum_parameters import SumParameters
from shared.tail import append_tail
from shared.wire import MAX_ROUND


@dataclass(repr=False, eq=False, kw_only=True)
class _Keys(Secret):
    """Keys made for a round that has not begun."""

    round: int
    exchange: ExchangeKey


@dataclass(repr=False, eq=False, kw_only=True)
class _Round(Secret):
    """A round that has begun: `context` and `mask_share` once masked, `agreed` once settled."""

    round: int
    exchange: ExchangeKey
    keys: dict[str, bytes]
    begun: bytes
    seed_shares: dict[str, bytes]
    context: bytes | None = None
    mask_share: bytes = b""
    agreed: tuple[str, ...] | None = None


@dataclass(repr=False, eq=False, kw_only=True)
class _Finished:
    """What was revealed, for a coordinator that asks for the same again."""

    context: bytes
    survivors: tuple[str, ...]
    reply: Unmasked


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
        self._channel: ExchangeKey | None = None
        self._channels: dict[str, tuple[bytes, bytes]] = {}
        self._next: _Keys | None = None
        self._round: _Round | None = None
        self._finished: _Finished | None = None

    def channel_key(self, request: ChannelRequest) -> ChannelKey:
        """This site's channel key for the run, the same each time until it restarts.

        Raises:
            ProtocolError: the request is for another study, run or parameters.
        """
        asked = (request.study_digest, request.run_id)
        if asked != (self.parameters.study_digest, self.parameters.run_id):
            self._refuse("the channel request is for another study or run than this one")
        self._check_study(request.study_hash)
        self._channel = self._channel or ExchangeKey(self._entropy(SECRET_BYTES))
        public = self._channel.public
        statement = transcript.channel_statement(request.study_hash, self.site, public)
        return ChannelKey(site=self.site, public=public, signature=self._identity.sign(statement))

    def round_keys(self, request: KeysRequest) -> RoundKeys:
        """Fresh keys for a round, dealt to all sites whose channel keys are given.

        An unfinished earlier round is given up and its secrets are dropped.

        Raises:
            ProtocolError: another study, a round already begun or masked, too few sites, no
                channel key of this site, or another one than it announced.
            AuthenticationError: an unknown site, a wrong signature, or one key twice.
        """
        self._check_study(request.study_hash)
        self._check_unmasked(request.round)
        if self._round is not None and request.round <= self._round.round:
            self._refuse(f"round {self._round.round} has begun, so its keys cannot be replaced")
        channels = self._open_channels(request.channel_keys)
        self._channels, self._round, self._finished = channels, None, None
        return self._deal_keys(request.round)

    def begin(self, request: UpdateRequest) -> bytes:
        """Check all that a round's opening must satisfy, and enter the round.

        Returns:
            Hash of everything shown to this site, 32 bytes; sites shown anything else differ.

        Raises:
            ProtocolError: another study, a round without fresh keys, too few participants, this
                site's key missing or changed, a share missing.
            AuthenticationError: an unknown site, a wrong signature, one key twice, or a sealed
                share that does not open.
        """
        self._check_study(request.study_hash)
        self._check_unmasked(request.round)
        if self._next is None or self._next.round != request.round:
            self._refuse(f"this site has no unused keys for round {request.round}")
        keys = {member.site: member.public for member in request.participants}
        self._check_members(keys, self._next.exchange.public, f"round {request.round}")
        for member in request.participants:
            statement = transcript.keys_statement(
                request.study_hash,
                request.round,
                member.site,
                member.public,
                member.commitments_hash,
            )
            self.parameters.roster.verify(
                member.site, statement, member.signature, f"the keys of round {request.round}"
            )
        shares = {
            dealer: self._open_share("seed", dealer, request.round, b"", request.sealed)
            for dealer in keys
            if dealer != self.site
        }
        begun = transcript.begun_context(
            request.study_hash, request.round, request.model, request.configuration, keys
        )
        self._round = _Round(
            round=request.round,
            exchange=self._next.exchange,
            keys=keys,
            begun=begun,
            seed_shares=shares,
        )
        self._next = self._finished = None
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
            self._refuse("no round has begun that is still to be masked")
        tailed = self._check_vector(vector, weight, spec)
        self._journal.claim(self.parameters.study_hash, state.round)
        context = transcript.round_context(state.begun, spec.digest)
        seed = self._entropy(SECRET_BYTES)
        plus, minus = self._pair_seeds(state, context)
        add_masks(tailed, plus=[seed, *plus], minus=minus, threads=self._threads)
        shares = self._split(seed, tuple(state.keys))
        state.context, state.mask_share = context, shares[self.site]
        commit = partial(transcript.commit_mask_share, context, self.site)
        return MaskedUpdate(
            site=self.site,
            round=state.round,
            context=context,
            packed=pack(tailed, spec.ring_bits),
            commitment=transcript.commit_self_mask(context, self.site, seed),
            share_commitments={holder: commit(holder, share) for holder, share in shares.items()},
            sealed=self._seal_shares("mask", state.round, context, shares),
        )

    def agree(self, request: AgreeRequest) -> Agreement:
        """Sign the survivors, once a round.

        Raises:
            ProtocolError: the study has no such step, another round, or survivors that this site
                must not help to open.
        """
        self._check_study(request.study_hash)
        if self.parameters.profile != "malicious":
            self._refuse("the study's profile is semi-honest, which has no agreement step")
        state = self._masked_round(request.context)
        self._check_survivors(state, request.survivors)
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
                self._refuse(f"round {done.reply.round} was unmasked for other survivors")
            return done.reply
        state = self._masked_round(request.context)
        self._check_survivors(state, request.survivors)
        if self.parameters.profile == "malicious":
            self._check_agreement(request)
        reply = self._reveal(state, request)
        self._finished = _Finished(
            context=request.context, survivors=request.survivors, reply=reply
        )
        self._round = None
        return reply

    # Steps of the methods above, in the same order.

    def _check_study(self, study_hash: bytes) -> None:
        if study_hash != self.parameters.study_hash:
            self._refuse("the request is bound to other study parameters than this site approved")

    def _check_unmasked(self, round: int) -> None:
        highest = self._journal.highest(self.parameters.study_hash)
        if round <= highest:
            self._refuse(f"round {round} is not above round {highest}, masked before")

    def _open_channels(self, announced: tuple[ChannelKey, ...]) -> dict[str, tuple[bytes, bytes]]:
        """Sealing keys to and from each peer, after checking what the coordinator passed on."""
        if self._channel is None:
            self._refuse("this site has announced no channel key in this run; ask for it first")
        keys = {key.site: key.public for key in announced}
        self._check_members(keys, self._channel.public, "the channel")
        study_hash = self.parameters.study_hash
        channels = {}
        for key in announced:
            statement = transcript.channel_statement(study_hash, key.site, key.public)
            self.parameters.roster.verify(key.site, statement, key.signature, "the channel key")
            if key.site != self.site:
                secret = self._channel.shared_secret(key.public)
                derived = partial(channel_key, secret, study_hash=study_hash)
                channels[key.site] = (
                    derived(sender=self.site, receiver=key.site),
                    derived(sender=key.site, receiver=self.site),
                )
        return channels

    def _check_members(self, keys: dict[str, bytes], own: bytes, what: str) -> None:
        """Enough sites, all of the roster, each with its own key, this site with its true one."""
        for member in keys:
            self.parameters.roster.position(member)
        if len(keys) < self.parameters.minimum_sites:
            self._refuse(
                f"{what} has {len(keys)} sites, and this study needs at least "
                f"{self.parameters.minimum_sites}"
            )
        if keys.get(self.site) != own:
            self._refuse(f"{what} does not have this site's own key")
        if len(set(keys.values())) != len(keys):
            raise AuthenticationError(f"{what} has the same key for two sites")

    def _deal_keys(self, round: int) -> RoundKeys:
        """A fresh round key from a seed whose shares are sealed to the holders."""
        seed = self._entropy(SECRET_BYTES)
        exchange = ExchangeKey(seed)
        shares = self._split(seed, (self.site, *self._channels))
        study_hash = self.parameters.study_hash
        commitments = {
            holder: transcript.commit_seed_share(study_hash, round, self.site, holder, share)
            for holder, share in shares.items()
        }
        self._next = _Keys(round=round, exchange=exchange)
        statement = transcript.keys_statement(
            study_hash, round, self.site, exchange.public, transcript.hash_commitments(commitments)
        )
        return RoundKeys(
            site=self.site,
            round=round,
            public=exchange.public,
            commitments=commitments,
            sealed=self._seal_shares("seed", round, b"", shares),
            signature=self._identity.sign(statement),
        )

    def _split(self, secret: bytes, holders: tuple[str, ...]) -> dict[str, bytes]:
        points = {self.parameters.point(holder): holder for holder in holders}
        dealt = split(
            secret,
            threshold=self.parameters.threshold,
            points=tuple(points),
            entropy=self._entropy,
        )
        return {points[point]: share for point, share in dealt.items()}

    def _seal_shares(
        self, kind: str, round: int, context: bytes, shares: dict[str, bytes]
    ) -> dict[str, bytes]:
        about = partial(
            seal_context,
            kind,
            study_hash=self.parameters.study_hash,
            round=round,
            context=context,
            sender=self.site,
        )
        return {
            holder: seal(
                self._channels[holder][0],
                share,
                about=about(receiver=holder),
                nonce=self._entropy(NONCE_BYTES),
            )
            for holder, share in shares.items()
            if holder != self.site
        }

    def _open_share(
        self, kind: str, dealer: str, round: int, context: bytes, boxes: Mapping[str, bytes]
    ) -> bytes:
        if dealer not in boxes or dealer not in self._channels:
            self._refuse(f"the {kind} share that {dealer} dealt this site is missing")
        about = seal_context(
            kind,
            study_hash=self.parameters.study_hash,
            round=round,
            sender=dealer,
            receiver=self.site,
            context=context,
        )
        what = f"the {kind} share from {dealer} for round {round}"
        share = open_sealed(self._channels[dealer][1], boxes[dealer], about=about, what=what)
        read_share(share)
        return share

    def _check_vector(
        self, vector: NDArray[np.uint32], weight: int, spec: VectorSpec
    ) -> NDArray[np.uint32]:
        if vector.dtype != np.uint32 or vector.shape != (spec.length,):
            raise EncodingError(
                f"the vector to mask is {vector.dtype} of shape {vector.shape}, and the study's "
                f"layout is uint32 of shape ({spec.length},)"
            )
        largest = self.parameters.max_weight
        if not 0 <= weight <= largest:
            raise EncodingError(f"the weight {weight} is not between 0 and max_weight {largest}")
        spec.check_headroom(len(self.parameters.roster), largest)
        return append_tail(vector, weight)

    def _pair_seeds(self, state: _Round, context: bytes) -> tuple[list[bytes], list[bytes]]:
        """Seeds of the masks shared with each peer; of two sites the roster's first adds."""
        plus: list[bytes] = []
        minus: list[bytes] = []
        place = self.parameters.roster.position
        for peer, public in state.keys.items():
            if peer == self.site:
                continue
            secret = state.exchange.shared_secret(public)
            low, high = sorted((self.site, peer), key=place)
            seed = pair_seed(secret, context=context, low=low, high=high)
            (plus if low == self.site else minus).append(seed)
        return plus, minus

    def _masked_round(self, context: bytes) -> _Round:
        state = self._round
        if state is None or state.context is None or state.context != context:
            self._refuse("the request is not for the round this site has masked last")
        return state

    def _check_survivors(self, state: _Round, survivors: tuple[str, ...]) -> None:
        least = max(self.parameters.threshold, self.parameters.minimum_sites)
        if not set(survivors) <= state.keys.keys():
            self._refuse("the survivors include a site that did not take part in the round")
        if self.site not in survivors:
            self._refuse("the survivors do not include this site")
        if len(survivors) < least:
            self._refuse(
                f"{len(survivors)} sites survive, and a sum over fewer than {least} is never opened"
            )
        if state.agreed not in (None, survivors):
            self._refuse(f"other survivors were agreed to in round {state.round}")

    def _check_agreement(self, request: UnmaskRequest) -> None:
        statement = transcript.survivors_statement(request.context, request.survivors)
        for signer, signature in request.signatures.items():
            if signer not in request.survivors:
                self._refuse(f"{signer} signed the survivors without being one")
            self.parameters.roster.verify(signer, statement, signature, "the survivors")
        if len(request.signatures) < self.parameters.threshold:
            self._refuse(
                f"{len(request.signatures)} sites signed the survivors, and "
                f"{self.parameters.threshold} are needed"
            )

    def _reveal(self, state: _Round, request: UnmaskRequest) -> Unmasked:
        masks = {self.site: state.mask_share}
        for survivor in request.survivors:
            if survivor != self.site:
                try:
                    masks[survivor] = self._open_share(
                        "mask", survivor, state.round, request.context, request.sealed
                    )
                except ProtocolError:
                    continue  # the others' shares suffice, or the round is void
        dropped = sorted(state.keys.keys() - set(request.survivors))
        following = state.round + 1
        return Unmasked(
            site=self.site,
            round=state.round,
            self_mask_shares=masks,
            seed_shares={site: state.seed_shares[site] for site in dropped},
            next_keys=self._deal_keys(following) if following <= MAX_ROUND else None,
        )

    def _refuse(self, sentence: str) -> NoReturn:
        raise ProtocolError(f"{sentence} (site {self.site})")
