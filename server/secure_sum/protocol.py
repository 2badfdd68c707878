"""The coordinator's half of the secure sum: one function for each phase.

The coordinator adds masked vectors as they arrive and keeps none. A round either gives the exact
sum over its survivors or is void; a void round is never retried, the next one has fresh keys.
"""

import os
import time
from collections.abc import Mapping, Sized
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from consilium.server.secure_sum.exchange import Clock, RoundLog, ask, require_sites
from consilium.server.secure_sum.key_exchange import KeyExchange
from consilium.server.secure_sum.sites import Sites
from consilium.server.secure_sum.unmasking import rebuild_round_key, rebuild_self_mask, remove_masks
from consilium.shared.crypto import transcript
from consilium.shared.errors import AuthenticationError, ProtocolError, RoundVoidError
from consilium.shared.secure_sum.fixed_point import Decoded, VectorSpec, decode
from consilium.shared.secure_sum.messages import (
    Action,
    Agreement,
    AgreeRequest,
    MaskedUpdate,
    RoundKeys,
    SignedKey,
    Unmasked,
    UnmaskRequest,
    UpdateRequest,
)
from consilium.shared.secure_sum.packing import add_packed, packed_bytes
from consilium.shared.secure_sum.parameters import SumParameters
from consilium.shared.secure_sum.tail import TAIL, check_tail
from consilium.shared.wire.encoding import CONTROL_BYTES, Message


@dataclass(frozen=True, kw_only=True)
class SumResult:
    """The sum of one round.

    Attributes:
        parts: by segment, the sum of the survivors' values, decoded from `ring_total` when read.
        ring_total: sum of the survivors' encodings modulo 2^ring_bits, shape (spec.length,).
        weight: sum of the survivors' weights.
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
    weight: int
    survivors: tuple[str, ...]
    dropped: tuple[str, ...]
    refusals: dict[str, str]
    seconds: dict[str, float]
    bytes_up: dict[str, int]
    bytes_down: dict[str, int]
    audit_heads: dict[str, bytes]


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
        self._keys = KeyExchange(parameters, sites, timeout_s=self._exchange_timeout_s)

    def open(self, *, round: int = 1) -> RoundLog:
        """Set up channels with all sites and collect their keys for the first round.

        Args:
            round: number of the first round; above all rounds of this run so far.

        Returns:
            What happened; the refusals include the sites that could not be reached.

        Raises:
            RoundVoidError: fewer than `minimum_sites` answered.
        """
        log = RoundLog(clock=self._clock)
        with log.timing("keys"):
            self._keys.collect(round, log, rejoin_timeout_s=self._exchange_timeout_s)
        return log

    def sum(
        self, *, round: int, spec: VectorSpec, model: bytes | memoryview, configuration: bytes
    ) -> SumResult:
        """One round: ask for masked vectors, open their sum.

        Args:
            round: the round's number, above every earlier one of the run.
            spec: layout of the vector; the sites derive the same from the approved study.
            model: little-endian float32 of the global model, handed to every site.
            configuration: of the round, handed to every site.

        Raises:
            RoundVoidError: no sum; the sentence says why. Go on with the next round's number.
            EncodingError: with this many sites the sum could exceed the ring and wrap.
        """
        spec.check_headroom(len(self.parameters.roster), self.parameters.max_weight)
        log = RoundLog(clock=self._clock)
        with log.timing("keys"):
            keys = self._keys.collect(round, log, rejoin_timeout_s=self._rejoin_timeout_s)
        with log.timing("update"):
            uploads = self._collect_updates(round, spec, model, configuration, keys, log)
        with log.timing("agree"):
            signatures = self._collect_agreements(round, uploads, log)
        with log.timing("unmask"):
            shares = self._collect_shares(round, keys, uploads, signatures, log)
        with log.timing("remove"):
            ring_total, weight = self._remove_masks(spec, keys, uploads, shares)
        return SumResult(
            parts=decode(ring_total, spec),
            ring_total=ring_total,
            weight=weight,
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
        keys: Mapping[str, RoundKeys],
        log: RoundLog,
    ) -> _Uploads:
        participants = tuple(
            SignedKey(
                site=site,
                public=k.public,
                commitments_hash=transcript.hash_commitments(k.commitments),
                signature=k.signature,
            )
            for site, k in keys.items()
        )
        requests = {
            site: UpdateRequest(
                study_hash=self.parameters.study_hash,
                round=round,
                participants=participants,
                sealed={dealer: k.sealed[site] for dealer, k in keys.items() if site in k.sealed},
                model=model,
                configuration=configuration,
            )
            for site in keys
        }
        publics = {site: k.public for site, k in keys.items()}
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
                _add_masked(uploads, reply, round, spec, self.parameters.circle(site) & keys.keys())
        self._require(
            uploads.headers, self.parameters.minimum_sites, "sent a masked update", round, log
        )
        if self.parameters.supported(uploads.survivors) != uploads.headers.keys():
            raise RoundVoidError(
                f"round {round} is void and the model unchanged: too many neighbours of a "
                "surviving site failed to open its mask; go on with the next round"
            )
        return uploads

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
        keys: Mapping[str, RoundKeys],
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
                sealed={s: h.sealed[site] for s, h in uploads.headers.items() if site in h.sealed},
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
                    self._keys.keep(site, reply.next_keys, round + 1)
        self._require(shares, self.parameters.threshold, "revealed their shares", round, log)
        return shares

    def _true_shares(
        self,
        site: str,
        reply: Unmasked,
        round: int,
        keys: Mapping[str, RoundKeys],
        uploads: _Uploads,
        log: RoundLog,
    ) -> Unmasked:
        """Return the reply without the shares that do not match their dealer's commitments."""
        masks, seeds = {}, {}
        for owner, share in reply.self_mask_shares.items():
            with log.blaming(site):
                commitment = transcript.commit_mask_share(uploads.context, owner, site, share)
                _check_share(owner, commitment, uploads.headers, "share_commitments", site)
                masks[owner] = share
        for owner, share in reply.seed_shares.items():
            with log.blaming(site):
                commitment = transcript.commit_seed_share(
                    self.parameters.study_hash, round, owner, site, share
                )
                _check_share(owner, commitment, keys, "commitments", site)
                seeds[owner] = share
        return replace(reply, self_mask_shares=masks, seed_shares=seeds)

    # Phase 5: rebuild the secrets, take the masks off, check the tail.

    def _remove_masks(
        self,
        spec: VectorSpec,
        keys: Mapping[str, RoundKeys],
        uploads: _Uploads,
        shares: Mapping[str, Unmasked],
    ) -> tuple[NDArray[np.uint32], int]:
        """Return the sum of the survivors' encodings (spec.length,), and of their weights."""
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
            )
            for owner in survivors
        }
        dropped_keys = {
            owner: rebuild_round_key(
                self.parameters,
                owner,
                {h: s.seed_shares[owner] for h, s in shares.items() if owner in s.seed_shares},
                keys[owner].public,
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
            survivor_keys={site: keys[site].public for site in survivors},
            threads=self._threads,
        )
        total = uploads.total
        if spec.ring_bits < 32:
            total &= np.uint32((1 << spec.ring_bits) - 1)
        weight = check_tail(
            total[-TAIL:], survivors=len(survivors), max_weight=self.parameters.max_weight
        )
        return total[:-TAIL], weight

    def _require(self, done: Sized, least: int, did: str, round: int, log: RoundLog) -> None:
        roster = self.parameters.roster
        require_sites(len(done), least, did, round=round, roster=roster, log=log)


def _add_masked(
    uploads: _Uploads, reply: MaskedUpdate, round: int, spec: VectorSpec, holders: frozenset[str]
) -> None:
    """Add one masked vector to the sum and keep the rest of its message.

    Args:
        uploads: gets the sum and the rest.
        reply: from one site.
        round: the round's number.
        spec: layout of the vector.
        holders: participants in the site's circle, itself included.
    """
    if reply.round != round or reply.context != uploads.context:
        raise ProtocolError(
            f"the update is for another round, model, configuration or layout than round {round}'s"
        )
    if set(reply.share_commitments) != holders:
        raise ProtocolError(
            "the self mask is not shared with exactly the participants in its circle"
        )
    if set(reply.sealed) != holders - {reply.site}:
        raise ProtocolError("the self mask's shares are not sealed for exactly those participants")
    add_packed(uploads.total, reply.packed, spec.ring_bits)
    uploads.headers[reply.site] = replace(reply, packed=b"")


def _check_share(
    owner: str, commitment: bytes, dealers: Mapping[str, Message], field: str, holder: str
) -> None:
    """A share must be one that was asked for and match its dealer's commitment."""
    dealer = dealers.get(owner)
    if dealer is None or getattr(dealer, field).get(holder) != commitment:
        raise AuthenticationError(
            f"the share {holder} revealed of {owner} does not match the commitment of {owner}"
        )
