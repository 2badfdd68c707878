"""The coordinator's half of the secure sum: one function for each phase.

The coordinator adds masked vectors as they arrive and keeps none. A round either gives the exact
sum over its survivors or is void; a void round is never retried, the next one has fresh keys.
"""

import os
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sized
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from consilium.server.secure_sum.exchange import Clock, RoundLog, ask, reasons, require_sites
from consilium.server.secure_sum.key_exchange import Dealt, KeyExchange
from consilium.server.secure_sum.site_heads import SiteHeads
from consilium.server.secure_sum.sites import Sites
from consilium.server.secure_sum.unmasking import (
    MisdealtError,
    rebuild_round_key,
    rebuild_self_mask,
    remove_masks,
)
from consilium.shared.crypto import transcript
from consilium.shared.crypto.keys import Roster
from consilium.shared.errors import AuthenticationError, ProtocolError, RoundVoidError
from consilium.shared.secure_sum.dealt_shares import commit_share, judge, mask_use, seed_use
from consilium.shared.secure_sum.fixed_point import Decoded, VectorSpec, decode
from consilium.shared.secure_sum.messages import (
    Action,
    Agreement,
    AgreeRequest,
    MaskedUpdate,
    Unmasked,
    UnmaskRequest,
    UpdateRequest,
)
from consilium.shared.secure_sum.packing import add_packed, packed_bytes
from consilium.shared.secure_sum.parameters import SumParameters
from consilium.shared.secure_sum.tail import TAIL, check_tail
from consilium.shared.wire.encoding import CONTROL_BYTES


@dataclass(frozen=True, kw_only=True)
class SumResult:
    """The sum of one round.

    Attributes:
        parts: by segment, the sum of the survivors' values, decoded from `ring_total` when read.
        ring_total: sum of the survivors' encodings modulo 2^ring_bits, shape (spec.length,).
        roster: the sites asked, with their declared sizes.
        survivors: sites in the sum, sorted.
        dropped: the other sites of the roster, sorted.
        refusals: by site, one sentence on what went wrong with it in this round; a survivor may
            have one too, when it failed after its update arrived.
        seconds: by phase: keys, update, agree, unmask, remove.
        bytes_up: by site, bytes it sent in this round.
        bytes_down: by site, bytes it was sent.
        audit_heads: by survivor, the audit head that came with its update, as it came.
    """

    parts: dict[str, Decoded]
    ring_total: NDArray[np.uint32]
    roster: Roster
    survivors: tuple[str, ...]
    dropped: tuple[str, ...]
    refusals: dict[str, str]
    seconds: dict[str, float]
    bytes_up: dict[str, int]
    bytes_down: dict[str, int]
    audit_heads: dict[str, bytes]

    @property
    def weight(self) -> int:
        """Sum of the survivors' declared sizes, in patients."""
        return declared_weight(self.roster, self.survivors)


@dataclass(kw_only=True)
class _Uploads:
    """The sum of the vectors that arrived, and the rest of each upload."""

    total: NDArray[np.uint32]
    context: bytes
    headers: dict[str, MaskedUpdate]

    @property
    def survivors(self) -> tuple[str, ...]:
        return tuple(sorted(self.headers))


class SecureSum:
    """Sums vectors over the sites of a run, learning the sum alone.

    Args:
        parameters: of the study and this run.
        sites: how to reach them.
        timeout_s: longest wait for the masked updates, training included, in seconds.
        exchange_timeout_s: longest wait in the phases without training; unless given `timeout_s`,
            but 60 s at most.
        rejoin_timeout_s: longest wait for a site that was absent in the last round; unless given
            `timeout_s`, but 15 s at most.
        heads: the sites' newest audit heads; none are known unless given.
        clock: for the times reported.
        threads: cores for expanding masks; all that this process may use if None.
    """

    def __init__(
        self,
        parameters: SumParameters,
        sites: Sites,
        *,
        timeout_s: float,
        exchange_timeout_s: float | None = None,
        rejoin_timeout_s: float | None = None,
        heads: SiteHeads | None = None,
        clock: Clock = time.monotonic,
        threads: int | None = None,
    ) -> None:
        self.parameters = parameters
        self._sites = sites
        self._timeout_s = timeout_s
        self._exchange_timeout_s = exchange_timeout_s or min(timeout_s, 60.0)
        self._rejoin_timeout_s = rejoin_timeout_s or min(timeout_s, 15.0)
        self._clock = clock
        self._threads = threads or len(os.sched_getaffinity(0))
        self._heads = heads or SiteHeads(dict(parameters.roster.members))
        self._keys = KeyExchange(
            parameters, sites, timeout_s=self._exchange_timeout_s, heads=self._heads
        )

    def open(self, *, round: int = 1, asked: Collection[str] | None = None) -> RoundLog:
        """Set up channels with all sites and collect their keys for the first round.

        Args:
            round: number of the first round; above all rounds of this run so far.
            asked: the sites that take part in it; all if None.

        Returns:
            What happened; the refusals include the sites that could not be reached.

        Raises:
            RoundVoidError: fewer than `minimum_sites` answered.
        """
        log = RoundLog(clock=self._clock)
        with log.timing("keys"):
            self._keys.collect(round, log, rejoin_timeout_s=self._exchange_timeout_s, asked=asked)
        return log

    def sum(
        self,
        *,
        round: int,
        spec: VectorSpec,
        model: bytes | memoryview,
        configuration: bytes | Callable[[], bytes],
        asked: Collection[str] | None = None,
    ) -> SumResult:
        """One round: ask for masked vectors, open their sum.

        Args:
            round: the round's number, above every earlier one of the run.
            spec: layout of the vector; the sites derive the same from the approved study.
            model: little-endian float32 of the global model, handed to every site.
            configuration: of the round, handed to every site; or what returns it, which is asked
                once all sites have joined.
            asked: the sites that take part; all if None.

        Raises:
            RoundVoidError: no sum; the sentence says why. Go on with the next round's number.
            EncodingError: with this many sites the sum could exceed the ring and wrap.
        """
        spec.check_headroom(len(self.parameters.roster), self.parameters.roster.largest_size)
        log = RoundLog(clock=self._clock)
        with log.timing("keys"):
            keys = self._keys.collect(
                round, log, rejoin_timeout_s=self._rejoin_timeout_s, asked=asked
            )
        if callable(configuration):
            configuration = configuration()
        with log.timing("update"):
            uploads = self._collect_updates(round, spec, model, configuration, keys, log)
        with log.timing("agree"):
            signatures = self._collect_agreements(round, uploads, log)
        with log.timing("unmask"):
            shares = self._collect_shares(round, keys, uploads, signatures, log)
        with log.timing("remove"):
            ring_total = self._opened(spec, keys, uploads, shares, log)
        return SumResult(
            parts=decode(ring_total, spec),
            ring_total=ring_total,
            roster=self.parameters.roster,
            survivors=uploads.survivors,
            dropped=tuple(sorted(set(self.parameters.roster) - set(uploads.survivors))),
            refusals=log.refusals,
            seconds=log.seconds,
            bytes_up=log.bytes_up,
            bytes_down=log.bytes_down,
            audit_heads={site: head.audit_head for site, head in uploads.headers.items()},
        )

    # Phase 2: masked updates, added as they arrive.

    def _collect_updates(
        self,
        round: int,
        spec: VectorSpec,
        model: bytes | memoryview,
        configuration: bytes,
        keys: Mapping[str, Dealt],
        log: RoundLog,
    ) -> _Uploads:
        participants = tuple(dealt.signed for dealt in keys.values())
        delivered = {dealer: dealt.deliveries() for dealer, dealt in keys.items()}
        requests = {
            site: UpdateRequest(
                study_hash=self.parameters.study_hash,
                round=round,
                participants=participants,
                letters={d: letters[site] for d, letters in delivered.items() if site in letters},
                model=model,
                configuration=configuration,
            )
            for site in keys
        }
        publics = {site: dealt.keys.public for site, dealt in keys.items()}
        begun = transcript.begun_context(
            self.parameters.study_hash, round, model, configuration, publics
        )
        uploads = _Uploads(
            total=np.zeros(spec.length + TAIL, np.uint32),
            context=transcript.round_context(begun, spec.digest),
            headers={},
        )
        limit = packed_bytes(spec.length + TAIL, spec.ring_bits) + CONTROL_BYTES
        replies = ask(
            self._sites,
            Action.UPDATE,
            requests,
            MaskedUpdate,
            log,
            timeout_s=self._timeout_s,
            max_bytes=limit,
        )
        for site, reply in replies:
            with log.blaming(site):
                self._heads.take(site, reply.audit_head)
                self._check_masked(reply, round, uploads.context, keys)
                add_packed(uploads.total, reply.packed, spec.ring_bits)
                uploads.headers[site] = replace(reply, packed=b"")
            self._hear_of_seeds(site, reply, keys, log)
        self._require(
            uploads.headers, self.parameters.minimum_sites, "sent a masked update", round, log
        )
        require_supported(self.parameters, uploads.survivors, round=round)
        return uploads

    def _check_masked(
        self, reply: MaskedUpdate, round: int, context: bytes, keys: Mapping[str, Dealt]
    ) -> None:
        """Check that an update is of this round and that its mask is dealt to its circle.

        Raises:
            ProtocolError: another round or context, or other holders.
            AuthenticationError: the site did not sign what it dealt.
        """
        if reply.round != round or reply.context != context:
            raise ProtocolError(
                "the update is for another round, model, configuration or layout than round "
                f"{round}'s"
            )
        site = reply.site
        if reply.boxes.keys() != (self.parameters.circle(site) & keys.keys()) - {site}:
            raise ProtocolError(
                "the self mask is not shared with exactly the participants in its circle"
            )
        boxes = {
            holder: (keys[holder].keys.letters[site].mask_key, dealt.commitment, dealt.box)
            for holder, dealt in reply.boxes.items()
        }
        statement = transcript.masked_statement(
            context, site, reply.commitment, reply.own_commitment, boxes
        )
        self.parameters.roster.verify(site, statement, reply.signature, "the self mask's shares")

    # Phase 3: agreement on the survivors.

    def _collect_agreements(self, round: int, uploads: _Uploads, log: RoundLog) -> dict[str, bytes]:
        """Return survivors' signatures on the list of survivors, as many as the sites ask for."""
        survivors = uploads.survivors
        request = AgreeRequest(
            study_hash=self.parameters.study_hash,
            round=round,
            context=uploads.context,
            survivors=survivors,
        )
        statement = transcript.survivors_statement(uploads.context, survivors)
        signatures = {}
        replies = ask(
            self._sites,
            Action.AGREE,
            dict.fromkeys(survivors, request),
            Agreement,
            log,
            timeout_s=self._exchange_timeout_s,
        )
        for site, reply in replies:
            with log.blaming(site):
                self.parameters.roster.verify(site, statement, reply.signature, "the survivors")
                signatures[site] = reply.signature
        self._require(signatures, self.parameters.threshold, "signed the survivors", round, log)
        return dict(sorted(signatures.items())[: self.parameters.threshold])

    # Phase 4: shares of survivors' self masks and of dropped sites' round keys.

    def _collect_shares(
        self,
        round: int,
        keys: Mapping[str, Dealt],
        uploads: _Uploads,
        signatures: Mapping[str, bytes],
        log: RoundLog,
    ) -> dict[str, Unmasked]:
        """Return each answering survivor's shares; wrong ones are left out, their senders noted."""
        survivors = uploads.survivors
        requests = {
            site: UnmaskRequest(
                study_hash=self.parameters.study_hash,
                round=round,
                context=uploads.context,
                survivors=survivors,
                signatures=signatures,
                boxes={s: h.boxes[site] for s, h in uploads.headers.items() if site in h.boxes},
            )
            for site in survivors
        }
        shares = {}
        replies = ask(
            self._sites, Action.UNMASK, requests, Unmasked, log, timeout_s=self._exchange_timeout_s
        )
        for site, reply in replies:
            with log.blaming(site):
                shares[site] = self._true_shares(site, reply, round, keys, uploads, log)
                if reply.next_keys is not None:
                    to = self._next_holders(site, keys)
                    self._keys.keep(site, reply.next_keys, round + 1, to)
            self._hear_of_masks(site, reply, keys, uploads, log)
        self._require(shares, self.parameters.threshold, "revealed their shares", round, log)
        return shares

    def _true_shares(
        self,
        site: str,
        reply: Unmasked,
        round: int,
        keys: Mapping[str, Dealt],
        uploads: _Uploads,
        log: RoundLog,
    ) -> Unmasked:
        """Return the reply without the shares that do not match their dealer's commitments."""
        masks, seeds = {}, {}
        study_hash, context = self.parameters.study_hash, uploads.context
        for owner, share in reply.self_mask_shares.items():
            with log.blaming(site):
                use = mask_use(study_hash, round, owner, site, context)
                header = uploads.headers.get(owner)
                committed = None if header is None else _mask_commitment(header, site)
                _check_share(owner, site, commit_share(use, share), committed)
                masks[owner] = share
        for owner, share in reply.seed_shares.items():
            with log.blaming(site):
                dealt = keys.get(owner)
                public = b"" if dealt is None else dealt.keys.public
                use = seed_use(study_hash, round, owner, site, public)
                committed = None if dealt is None else dealt.commitment(site)
                _check_share(owner, site, commit_share(use, share), committed)
                seeds[owner] = share
        return replace(reply, self_mask_shares=masks, seed_shares=seeds)

    def _next_holders(self, site: str, keys: Mapping[str, Dealt]) -> dict[str, bytes]:
        """By participant in the site's circle, the key it announced for the site's next share."""
        holders = (self.parameters.circle(site) & keys.keys()) - {site}
        return {holder: keys[holder].keys.letters[site].seed_key for holder in holders}

    # Complaints: the dealer of a wrong share is taken out of the run, and so named.

    def _hear_of_seeds(
        self, holder: str, reply: MaskedUpdate, keys: Mapping[str, Dealt], log: RoundLog
    ) -> None:
        for dealer, witness in reply.complaints.items():
            with log.blaming(holder):
                dealt = keys.get(dealer)
                if dealt is None or holder not in dealt.to:
                    raise ProtocolError(f"{holder} complained of {dealer}, which dealt it nothing")
                study_hash, letter = self.parameters.study_hash, dealt.keys.letters[holder]
                use = seed_use(study_hash, dealt.keys.round, dealer, holder, dealt.keys.public)
                why = judge(witness, dealt.to[holder], letter.box, letter.commitment, use)
                self._expel(dealer, why, log)

    def _hear_of_masks(
        self,
        holder: str,
        reply: Unmasked,
        keys: Mapping[str, Dealt],
        uploads: _Uploads,
        log: RoundLog,
    ) -> None:
        for dealer, witness in reply.complaints.items():
            with log.blaming(holder):
                header = uploads.headers.get(dealer)
                if header is None or holder not in header.boxes:
                    raise ProtocolError(f"{holder} complained of {dealer}, which dealt it nothing")
                dealt, announced = header.boxes[holder], keys[holder].keys.letters[dealer].mask_key
                study_hash, context = self.parameters.study_hash, uploads.context
                use = mask_use(study_hash, header.round, dealer, holder, context)
                why = judge(witness, announced, dealt.box, dealt.commitment, use)
                self._expel(dealer, why, log)

    def _expel(self, dealer: str, why: str, log: RoundLog) -> None:
        log.refusals[dealer] = why
        self._keys.expel(dealer, why)

    # Phase 5: rebuild the secrets, take the masks off, check the tail.

    def _opened(
        self,
        spec: VectorSpec,
        keys: Mapping[str, Dealt],
        uploads: _Uploads,
        shares: Mapping[str, Unmasked],
        log: RoundLog,
    ) -> NDArray[np.uint32]:
        """The sum, or a void round that says who is to blame as far as is known."""
        try:
            return self._remove_masks(spec, keys, uploads, shares)
        except MisdealtError as error:
            self._expel(error.owner, str(error), log)
            raise
        except RoundVoidError as error:
            raise RoundVoidError(f"{error}{reasons(log)}", garbage=error.garbage) from None

    def _remove_masks(
        self,
        spec: VectorSpec,
        keys: Mapping[str, Dealt],
        uploads: _Uploads,
        shares: Mapping[str, Unmasked],
    ) -> NDArray[np.uint32]:
        """Return the sum of the survivors' encodings (spec.length,)."""
        survivors, context = uploads.survivors, uploads.context
        self_masks = {
            owner: rebuild_self_mask(
                self.parameters,
                context,
                owner,
                {
                    h: s.self_mask_shares[owner]
                    for h, s in shares.items()
                    if owner in s.self_mask_shares
                },
                uploads.headers[owner].commitment,
                answered=shares.keys(),
            )
            for owner in survivors
        }
        dropped_keys = {
            owner: rebuild_round_key(
                self.parameters,
                owner,
                {h: s.seed_shares[owner] for h, s in shares.items() if owner in s.seed_shares},
                keys[owner].keys.public,
                answered=shares.keys(),
            )
            for owner in keys.keys() - set(survivors)
            if not self.parameters.circle(owner).isdisjoint(survivors)
        }
        remove_masks(
            uploads.total,
            parameters=self.parameters,
            context=context,
            self_masks=self_masks,
            dropped_keys=dropped_keys,
            survivor_keys={site: keys[site].keys.public for site in survivors},
            threads=self._threads,
        )
        return checked_total(uploads.total, spec, self.parameters.roster, survivors)

    def _require(self, done: Sized, least: int, did: str, round: int, log: RoundLog) -> None:
        roster = self.parameters.roster
        require_sites(len(done), least, did, round=round, roster=roster, log=log)


def require_supported(parameters: SumParameters, survivors: Collection[str], *, round: int) -> None:
    """Void the round unless each survivor's secrets can be opened by survivors of its circle.

    Raises:
        RoundVoidError: they cannot.
    """
    if parameters.supported(survivors) != set(survivors):
        raise RoundVoidError(
            f"round {round} is void and the model unchanged: too many neighbours of a "
            "surviving site failed to open its mask; go on with the next round"
        )


def checked_total(
    total: NDArray[np.uint32], spec: VectorSpec, roster: Roster, survivors: Collection[str]
) -> NDArray[np.uint32]:
    """Return the sum of the survivors' encodings (spec.length,), once its tail is checked.

    Args:
        total: sum of their vectors with tails, modulo 2^32; reduced to the ring in place.
        spec: layout of the vectors.
        roster: has the declared sizes.
        survivors: the sites in the sum.

    Raises:
        RoundVoidError: the tail is not that of these sites, one of which is to blame.
    """
    if spec.ring_bits < 32:
        total &= np.uint32((1 << spec.ring_bits) - 1)
    with blamed_on(survivors):
        check_tail(
            total[-TAIL:],
            survivors=len(survivors),
            weight=declared_weight(roster, survivors),
        )
    return total[:-TAIL]


def declared_weight(roster: Roster, survivors: Iterable[str]) -> int:
    """Return the sum of these sites' declared sizes, in patients."""
    return sum(roster.sizes[site] for site in survivors)


@contextmanager
def blamed_on(sites: Collection[str]) -> Iterator[None]:
    """Say of a round that the block declares void that one of these sites broke the protocol."""
    try:
        yield
    except RoundVoidError as error:
        raise RoundVoidError(str(error), garbage=[sites]) from error


def _mask_commitment(header: MaskedUpdate, holder: str) -> bytes | None:
    """The commitment to a holder's share of a survivor's self mask; None if it was dealt none."""
    if holder == header.site:
        return header.own_commitment
    dealt = header.boxes.get(holder)
    return None if dealt is None else dealt.commitment


def _check_share(owner: str, holder: str, found: bytes, committed: bytes | None) -> None:
    """A share must be one that was asked for and match its dealer's commitment.

    Its holder compared it when it came, so it is the holder that reveals another one.
    """
    if committed is None or found != committed:
        raise AuthenticationError(
            f"the share {holder} revealed of {owner} does not match the commitment of {owner}"
        )
