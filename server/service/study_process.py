"""The process that runs one study; between rounds it saves a checkpoint and obeys the operator.

If it is killed, the next process goes on from the checkpoint, with the same study, run identity and
roster; the round that may have begun is skipped.
"""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from consilium.server.coordinator.folder import CoordinatorFolder, hold_lock
from consilium.server.coordinator.register import Register, State, Submitted, Wanted
from consilium.server.coordinator.roster_book import note_in_force, put_in_force
from consilium.server.coordinator.round_records import RECORDS, add_record, put_in_missing
from consilium.server.flower.database_link import LinkGrid
from consilium.server.flower.sites import FlowerSites
from consilium.server.processes.child_process import exit_with_parent
from consilium.server.processes.freed_memory import give_back_freed_memory
from consilium.server.secure_sum.exchange import RoundLog, ask
from consilium.server.secure_sum.site_heads import SiteHeads
from consilium.server.secure_sum.sites import Sites
from consilium.server.study.checkpoints import begin, load_checkpoint, save_checkpoint
from consilium.server.study.round_record import round_record
from consilium.server.study.run import RoundResult, check_hope, next_purpose, run_study
from consilium.shared.audit.anchors import Anchors
from consilium.shared.audit.events import LeftOut, RoundClosed, StudyChanged
from consilium.shared.audit.log import AuditLog
from consilium.shared.audit.own_log import open_audit
from consilium.shared.audit.reading import newest_heads
from consilium.shared.crypto.transcript import digest, sha256
from consilium.shared.enrolment.messages import roster_digest
from consilium.shared.errors import RoundVoidError, StudyEndedError
from consilium.shared.rounds.contents import Purpose, group_parameters
from consilium.shared.secure_sum.messages import Action, ChannelKey, ChannelRequest, declared_sizes
from consilium.shared.secure_sum.parameters import SumParameters
from consilium.shared.study.definition import Study

POLL_S = 0.01
ASK_READY_S = 30.0
ASK_AGAIN_S = 1.0
PATIENCE_BEGUN_S = 10.0  # wait this long for all sites once a study has begun; then enough do

COUNTED = (
    "the cohort is counted: 'consilium-coordinator feasibility' shows it; 'resume' goes on with "
    "training, 'stop' ends the study"
)
LOST = "the study's process ended during this round, so nobody knows how far it had come"

Groups = Sequence[SumParameters]

log = logging.getLogger(__name__)


def run_submitted(
    folder: CoordinatorFolder, digest: bytes, *, patience_s: float, parent: int | None = None
) -> None:
    """Run a submitted study until it is finished, or the operator wants it paused or stopped.

    Args:
        folder: the coordinator's.
        digest: of the study.
        patience_s: how long to wait for all sites before beginning with enough of them.
        parent: identifier of a process; this one ends when that one does.

    Raises:
        SettingsError: another process runs this study, or its checkpoint is damaged.
    """
    if parent is not None:
        exit_with_parent(parent)
    give_back_freed_memory()
    logging.getLogger("flwr").handlers.clear()  # or every line would be logged twice
    register = folder.register()
    submitted = register.study(digest.hex())
    place = folder.study(digest)
    lock = hold_lock(place / "lock", refused=f"study {submitted.name} is being run already")
    process = StudyProcess(register, submitted, place, open_audit(folder))
    with LinkGrid(folder.link_database, place / "flower-run") as grid:
        sites = FlowerSites(grid, {}, poll_s=POLL_S, forget=grid.forget)

        def look_up(now: Submitted) -> None:
            sites.assign(_nodes(register, now))

        process.run(sites, patience_s, look_up)
    log.info("study %s: %s", submitted.name, register.study(digest.hex()).state)
    del lock  # held to the end


class StudyProcess:
    """One study in progress."""

    def __init__(
        self, register: Register, submitted: Submitted, place: Path, audit: AuditLog
    ) -> None:
        self._register, self._submitted, self._place = register, submitted, place
        self._audit, self._anchors = audit, Anchors(audit)
        self._study = submitted.study
        identities = dict(submitted.roster.members)
        self._heads = SiteHeads(identities, newest_heads(audit.path, identities))
        self._ended = ""  # why the study cannot go on
        self._look_up: Callable[[Submitted], None] = lambda _: None

    def run(
        self,
        sites: Sites,
        patience_s: float,
        look_up: Callable[[Submitted], None] = lambda _: None,
    ) -> None:
        """Run the study on these sites; see :func:`run_submitted`.

        ``look_up`` finds out anew where the study's sites are to be reached.
        """
        self._look_up = look_up
        self._begin_or_go_on()
        groups: Groups = ()
        if self._wait_for_sizes():
            self._roster_now()
            groups = self._renewed()
        while (
            groups and not (self._at.state.finished or self._ended) and self._wanted is Wanted.RUN
        ):
            if self._at.state.next_round > 1:
                patience_s = min(patience_s, PATIENCE_BEGUN_S)
            if not self._wait_for_sites(sites, groups, patience_s):
                groups = self._renewed()
                continue
            self._change(State.RUNNING)
            if self._at.resting:
                self._go_to(resting=False)  # before a round can begin
            self._rounds(sites, groups)
            groups = self._renewed()
        if not self._at.state.finished:
            self._go_to(resting=True)
        if self._ended:
            self._register.want(self._submitted.digest, Wanted.STOP)
            self._change(State.STOPPED, self._ended)
        elif self._at.state.finished:
            self._change(State.FINISHED)
        elif self._wanted is Wanted.PAUSE:
            last = self._at.history[-1:]
            counted = any(Purpose(record["purpose"]) is Purpose.FEASIBILITY for record in last)
            self._change(State.PAUSED, COUNTED if counted else "")
        elif self._wanted is Wanted.STOP:
            self._change(State.STOPPED)

    def _begin_or_go_on(self) -> None:
        """Take up the checkpoint, or make one; ``self._at`` alone holds its weights then."""
        found = load_checkpoint(self._place)
        if found is None:
            self._at = begin(self._place, self._study)
            self._go_to(resting=True)  # until the first round begins
        else:
            self._at = found
            put_in_missing(self._place / RECORDS, found.history)
            self._close_lost_round()

    @property
    def _wanted(self) -> Wanted:
        return self._register.wanted(self._submitted.digest)

    def _go_to(self, **changes: Any) -> None:
        """Change the checkpoint, here and on disk, so that the old state's memory is free."""
        self._at = replace(self._at, **changes)
        save_checkpoint(self._place, self._at)

    def _rounds(self, sites: Sites, groups: Groups) -> None:
        """Run rounds until the study is done, something else is wanted, or no sites are left."""
        try:
            for result in run_study(
                self._study,
                groups,
                sites,
                self._at.state,
                audit_head=lambda: self._audit.head().to_bytes(),
                site_heads=self._heads,
            ):
                self._rest_once_counted(result)
                self._close_round(groups, result)
                check_hope(result.state)
                if result.void is not None or self._wanted is not Wanted.RUN:
                    return  # or an outage would use up one round after another
                if self._roster_now() != _roster_of(self._submitted):
                    return  # the next round is of the roster in force then
        except RoundVoidError as error:
            log.warning("study %s: %s", self._study.name, error)
            self._register.note(self._submitted.digest, State.WAITING, str(error))
            state = self._at.state
            self._at = replace(self._at, state=replace(state, next_round=state.next_round + 1))
            return
        except StudyEndedError as error:
            log.error("study %s ends: %s", self._study.name, error)
            self._ended = str(error)
            return
        self._go_to(state=replace(self._at.state, finished=True))

    def _rest_once_counted(self, result: RoundResult) -> None:
        """Let the study rest after its feasibility round, given or void: training is a decision.

        This is on disk before the round is, so that no crash goes on to training by itself.
        """
        if result.purpose is Purpose.FEASIBILITY and self._wanted is Wanted.RUN:
            self._register.want(self._submitted.digest, Wanted.PAUSE)

    def _roster_now(self) -> tuple[object, ...]:
        """Return the study's roster as it is in force now; also look up where its sites are.

        Called between rounds: what all have agreed to comes into force here.
        """
        now = self._register.study(self._submitted.digest.hex())
        if put_in_force(self._register, now, round=self._at.state.next_round):
            now = self._register.study(self._submitted.digest.hex())
        self._look_up(now)
        return _roster_of(now)

    def _renewed(self) -> Groups:
        """Return the parameters of the roster in force: another one makes another run of sums."""
        now = self._register.study(self._submitted.digest.hex())
        note_in_force(self._register, self._audit, now)
        if _roster_of(now) != _roster_of(self._submitted):
            before, identities = dict(self._submitted.roster.members), dict(now.roster.members)
            for site, identity in identities.items():
                if before.get(site, identity) != identity:
                    self._anchors.forget(site, now.digest)
            self._heads = SiteHeads(identities, newest_heads(self._audit.path, identities))
            log.info("study %s goes on with roster %d", self._study.name, now.version)
        self._submitted, self._study = now, now.study
        groups = group_parameters(self._study, now.roster, self._at.run_id)
        known = [narrowing.sites for narrowing in self._at.state.groups]
        if known and known != [group.roster.names for group in groups]:
            # What was learned of senders of garbage was learned of sums of other sites.
            self._at = replace(self._at, state=replace(self._at.state, groups=()))
        return groups

    def _close_round(self, groups: Groups, result: RoundResult) -> None:
        """Write the round to disk: audit log, then checkpoint, then the record for people."""
        record = round_record(self._study, result) | self._roster_record()
        identities = dict(self._submitted.roster.members)
        found = self._anchors.record(
            result.audit_heads, identities, study_digest=self._submitted.digest
        )
        for wrong in found.values():
            log.warning("%s", wrong)
        weights = result.state.server.weights_D.astype("<f4", copy=False).view(np.uint8).data
        self._audit.append(
            RoundClosed(
                study_digest=self._submitted.digest,
                study_hash=_run_hash(groups),
                round=result.number,
                purpose=result.purpose.value,
                survivors=result.survivors,
                model_digest=sha256(weights),
                void=None if result.void is None else result.void[:1000],
            )
        )
        self._note_left_out(groups, result)
        self._go_to(state=result.state, history=(*self._at.history, record))
        add_record(self._place / RECORDS, record)
        log.info("%s", _sentence(self._study, result))

    def _close_lost_round(self) -> None:
        """Go on past the round in which an earlier process ended, and note it as void."""
        after = self._at.resumed(self._study)
        if after is self._at:
            return
        result = RoundResult(
            number=self._at.state.next_round,
            purpose=next_purpose(self._study, self._at.state),
            state=after.state,
            void=LOST,
        )
        record = round_record(self._study, result) | self._roster_record()
        run = group_parameters(self._study, self._submitted.roster, self._at.run_id)
        weights = after.state.server.weights_D.astype("<f4", copy=False).view(np.uint8).data
        self._audit.append(
            RoundClosed(
                study_digest=self._submitted.digest,
                study_hash=_run_hash(run),
                round=result.number,
                purpose=result.purpose.value,
                survivors=(),
                model_digest=sha256(weights),
                void=LOST,
            )
        )
        self._rest_once_counted(result)
        self._at = after
        self._go_to(history=(*after.history, record), resting=True)
        add_record(self._place / RECORDS, record)
        log.warning("%s", _sentence(self._study, result))

    def _roster_record(self) -> dict[str, Any]:
        """Return which roster a round was of, for its record."""
        roster = {
            "version": self._submitted.version,
            "digest": roster_digest(self._submitted.roster).hex(),
        }
        return {"roster": roster}

    def _wait_for_sizes(self) -> bool:
        """Wait until every site has declared its size: then the roster is final; False if unwanted.

        Without the size of a site nobody could tell the sites' weights.
        """
        while self._wanted is Wanted.RUN:
            self._submitted = self._register.study(self._submitted.digest.hex())
            if not self._submitted.undeclared:
                return True
            missing = ", ".join(self._submitted.undeclared)
            self._register.note(
                self._submitted.digest,
                State.WAITING,
                f"waiting for the declared size of {missing}: its hospital has not approved yet",
            )
            time.sleep(ASK_AGAIN_S)
        return False

    def _note_left_out(self, groups: Groups, result: RoundResult) -> None:
        """Log, also for auditors, whom the next rounds do without, where that changed."""
        after, narrowing = result.state.left_out, result.state.narrowing
        if after == self._at.state.left_out and narrowing == result.narrowing:
            return
        self._audit.append(
            LeftOut(
                study_digest=self._submitted.digest,
                study_hash=_run_hash(groups),
                round=result.number,
                sites=after,
                narrowing=narrowing,
            )
        )
        log.warning(
            "study %s goes on %s%s",
            self._study.name,
            f"without {', '.join(after)}" if after else "with all sites",
            ": somebody sends garbage, and the next rounds narrow down who" if narrowing else "",
        )

    def _wait_for_sites(self, sites: Sites, groups: Groups, patience_s: float) -> bool:
        """Wait until all sites are ready, or after ``patience_s`` enough.

        False: the study is unwanted by now, or has another roster.
        """
        began = time.monotonic()
        while self._wanted is Wanted.RUN:
            ready, refusals = _ready(sites, groups, self._heads)
            waited = time.monotonic() - began
            if self._roster_now() != _roster_of(self._submitted):
                return False
            wanted = set(self._submitted.roster) - set(self._at.state.left_out)
            wanted -= self._submitted.gone
            missing = sorted(wanted - ready)
            if not missing or (_enough(groups, ready & wanted) and waited >= patience_s):
                return True
            reasons = "; ".join(f"{site}: {refusals.get(site, 'not there')}" for site in missing)
            self._register.note(self._submitted.digest, State.WAITING, f"waiting for {reasons}")
            time.sleep(ASK_AGAIN_S)
        return False

    def _change(self, state: State, detail: str = "") -> None:
        """Note the study's state in register and audit log, if it is new."""
        if self._register.study(self._submitted.digest.hex()).state is state:
            return
        self._audit.append(
            StudyChanged(
                study=self._study.name, study_digest=self._submitted.digest, state=state.value
            )
        )
        self._register.note(self._submitted.digest, state, detail)


def _roster_of(submitted: Submitted) -> tuple[object, ...]:
    """Return what makes a roster another one: identities, and who left."""
    return submitted.roster.members, submitted.gone


def _run_hash(groups: Groups) -> bytes:
    """Return what identifies the run in the audit log: its study hash, or a digest of several."""
    if len(groups) == 1:
        return groups[0].study_hash
    return digest("groups", *(group.study_hash for group in groups))


def _enough(groups: Groups, ready: set[str]) -> bool:
    """Whether more than half of the groups have the sites that a sum needs."""
    able = [len(ready & set(group.roster)) >= group.minimum_sites for group in groups]
    return 2 * sum(able) > len(able)


def _ready(sites: Sites, groups: Groups, heads: SiteHeads) -> tuple[set[str], dict[str, str]]:
    """Return the sites that would take part now, and the reasons of the others.

    Each is shown the newest head of its own log, so one that was put back to an older state says
    so.
    """
    book = RoundLog(clock=time.monotonic)
    requests = {
        site: ChannelRequest(
            study_digest=group.study_digest,
            run_id=group.run_id,
            study_hash=group.study_hash,
            declared=declared_sizes(group.roster),
            audit_head=heads.of(site),
        )
        for group in groups
        for site in group.roster
    }
    replies = ask(sites, Action.CHANNEL, requests, ChannelKey, book, timeout_s=ASK_READY_S)
    return {site for site, _ in replies}, book.refusals


def _nodes(register: Register, submitted: Submitted) -> dict[str, int]:
    """Flower nodes of the study's sites: those still enrolled under the identity of the roster."""
    return {
        member.name: member.node_id
        for member in register.members()
        if member.revoked is None
        and (member.name, member.identity) in submitted.roster.members
        and member.name not in submitted.gone
    }


def _sentence(study: Study, result: RoundResult) -> str:
    if result.void is not None:
        return f"study {study.name} round {result.number} is void: {result.void}"
    return (
        f"study {study.name} round {result.number} ({result.purpose.value}): "
        f"{len(result.survivors)} sites, {result.seconds:.2f} s"
    )
