"""A real round of real sessions leaves two logs that confirm each other and the ledger."""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from consilium.client.hospital.known_sizes import KnownSizes
from consilium.client.hospital.peer_heads import PeerHeads
from consilium.client.hospital.personal_store import PersonalStore
from consilium.client.hospital.policy import Policy
from consilium.client.hospital.round_audit import RoundAudit
from consilium.client.hospital.state import SiteState
from consilium.client.ledger.store import Ledger
from consilium.client.records.cohort import read_cohort
from consilium.client.round.session import Session
from consilium.client.secure_sum.journal import RoundJournal
from consilium.server.study.aggregation import start
from consilium.server.study.run import RoundResult, RunState, run_study
from consilium.shared.audit.anchors import Anchors
from consilium.shared.audit.check import Reason, check_log
from consilium.shared.audit.entry import AuditEntry
from consilium.shared.audit.events import AuditEvent, Released, RoundClosed
from consilium.shared.audit.log import AuditLog
from consilium.shared.audit.reading import read_lines, recorded_heads
from consilium.shared.crypto.keys import IdentityKey
from consilium.shared.errors import AuditError, UnableError
from consilium.shared.model.network import build_model
from consilium.shared.model.weight_vector import to_vector
from consilium.shared.rounds.contents import group_parameters
from consilium.shared.secure_sum.messages import Action, Refusal
from consilium.shared.study.definition import Study, parse_study, with_changes
from consilium.shared.study.input_names import feature_names
from consilium.simulations.cohorts.hospitals import synthetic_hospital
from tests.rosters import sized_roster

STUDY = parse_study("""
name = "audited"
title = "Audited"
rounds = 2
sites = ["a", "b", "c", "d"]
[data]
source = "synthetic-icu"
label = "In-hospital_death"
window_h = 6
[model]
hidden = 4
[training]
local_steps = 1
[evaluation]
validation_fraction = 0.2
[variables]
HR = { unit = "/min", low = 10, high = 300, center = 85, spread = 18 }
""")
COORDINATOR = IdentityKey.from_seed(b"c" * 32)
KEYS = {site: IdentityKey.from_seed(site.encode() * 32) for site in STUDY.sites}
SORTED = dict(sorted(KEYS.items()))
IDENTITIES = {site: key.public for site, key in KEYS.items()}
RUN = bytes(16)


class SessionSites:
    """Sessions in this process; refusals are kept."""

    def __init__(self, folder: Path, study: Study = STUDY, *, audited: bool = True) -> None:
        self.refusals: list[Refusal] = []
        self.folder = folder
        self.sessions = {
            site: self._session(site, number, study, audited)
            for number, site in enumerate(study.sites)
        }

    def log(self, site: str) -> Path:
        return self.folder / site / "audit.jsonl"

    def ledger(self, site: str) -> Ledger:
        return Ledger(self.folder / site / "ledger.sqlite", lifetime_epsilon=16.0, delta=1e-5)

    def _session(self, site: str, number: int, study: Study, audited: bool) -> Session:
        (self.folder / site).mkdir(parents=True)
        cohort = read_cohort(synthetic_hospital(number, study), study, site=site, split_key=RUN * 2)
        log = AuditLog(self.log(site), owner=site, key=KEYS[site], version="0.1.0")
        state = SiteState(
            identity=KEYS[site],
            ledger=self.ledger(site),
            journal=RoundJournal(self.folder / site / "journal.sqlite"),
            split_key=bytes(32),
            personal=PersonalStore(self.folder / site / "personal"),
            audit=self._audit(site, log) if audited else None,
        )
        return Session(
            site=site,
            study=study,
            roster=sized_roster(SORTED, study.digest),
            sizes=KnownSizes({}),
            read=lambda: cohort,
            policy=Policy(allow_without_privacy=True),
            state=state,
        )

    def _audit(self, site: str, log: AuditLog) -> RoundAudit:
        heads = PeerHeads(self.folder / site / "heads.sqlite")
        identity = KEYS[site].public
        return RoundAudit(log, identity=identity, coordinator=COORDINATOR.public, heads=heads)

    def names(self) -> tuple[str, ...]:
        return tuple(self.sessions)

    def ask(
        self, action: Action, bodies: Mapping[str, bytes], *, timeout_s: float
    ) -> Iterator[tuple[str, bytes]]:
        for site, body in bodies.items():
            answer = self.sessions[site].handle(action, body)
            if answer.refusal is not None:
                self.refusals.append(answer.refusal)
            yield site, answer.body


def coordinator_log(folder: Path) -> AuditLog:
    return AuditLog(folder / "audit.jsonl", owner="coordinator", key=COORDINATOR, version="0.1.0")


def run(sites: SessionSites, log: AuditLog, study: Study = STUDY) -> list[RoundResult]:
    """What the coordinator does: show its head, close each round in its log, anchor the sites."""
    parameters = group_parameters(study, sized_roster(SORTED, study.digest), RUN)
    model = build_model(study, len(feature_names(study)), seed=study.seed)
    state = RunState(server=start(to_vector(model)))
    anchors, results = Anchors(log), []
    for result in run_study(
        study, parameters, sites, state, audit_head=lambda: log.head().to_bytes()
    ):
        wrong = anchors.record(result.audit_heads, IDENTITIES, study_digest=study.digest)
        assert set(wrong) == {site for site, head in result.audit_heads.items() if not head}
        log.append(
            RoundClosed(
                study_digest=study.digest,
                study_hash=parameters[0].study_hash,
                round=result.number,
                purpose=result.purpose.value,
                survivors=result.survivors,
                model_digest=bytes(32),
                void=result.void,
            )
        )
        results.append(result)
    return results


def events(path: Path, kind: type[AuditEvent]) -> list[AuditEvent]:
    found = [AuditEntry.from_line(line).event for line in read_lines(path)]
    return [event for event in found if isinstance(event, kind)]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[SessionSites, AuditLog, list]:
    folder = tmp_path_factory.mktemp("audited")
    sites, log = SessionSites(folder), coordinator_log(folder)
    results = run(sites, log)
    assert [result.void for result in results] == [None] * 4
    return sites, log, results


def test_every_site_and_the_coordinator_confirm_each_others_log(finished) -> None:
    sites, log, results = finished
    for site in sites.names():
        shown = recorded_heads(log.path, owner=site, identities=[IDENTITIES[site]])
        report = check_log(sites.log(site), trusted=IDENTITIES[site], owner=site, anchors=shown)
        assert (report.finding, report.anchors) == (None, len(results))
        shown = recorded_heads(
            sites.log(site), owner="coordinator", identities=[COORDINATOR.public]
        )
        report = check_log(log.path, trusted=COORDINATOR.public, owner="coordinator", anchors=shown)
        assert (report.finding, report.anchors) == (None, len(results))


def test_every_confirmed_release_of_the_ledger_stands_in_the_log_with_its_epsilon(finished) -> None:
    sites, _, results = finished
    released = events(sites.log("a"), Released)
    assert [event.round for event in released] == [result.number for result in results]
    assert [event.purpose for event in released] == [result.purpose.value for result in results]
    entries = sites.ledger("a").entries()
    assert all(entry.confirmed for entry in entries)
    assert {entry.release.round for entry in entries} == {event.round for event in released}
    assert released[-1].epsilon == pytest.approx(STUDY.privacy.epsilon, rel=1e-3)
    assert [event.epsilon for event in released] == sorted(event.epsilon for event in released)


def test_a_site_that_takes_its_last_release_out_of_its_log_is_betrayed(finished, tmp_path) -> None:
    sites, log, _ = finished
    lines = list(read_lines(sites.log("b")))
    cut = tmp_path / "audit.jsonl"
    cut.write_bytes(b"".join(lines[:-1]))
    shown = recorded_heads(log.path, owner="b", identities=[IDENTITIES["b"]])
    finding = check_log(cut, trusted=IDENTITIES["b"], owner="b", anchors=shown).finding
    assert (finding.line, finding.reason) == (len(lines), Reason.TRUNCATED)


def test_what_cannot_be_recorded_does_not_leave(tmp_path, monkeypatch) -> None:
    sites, log = SessionSites(tmp_path), coordinator_log(tmp_path)
    monkeypatch.setattr(
        AuditLog, "append", lambda *_: (_ for _ in ()).throw(AuditError("the disk is full"))
    )
    parameters = group_parameters(STUDY, sized_roster(SORTED, STUDY.digest), RUN)
    model = build_model(STUDY, len(feature_names(STUDY)), seed=0)
    rounds = run_study(
        STUDY,
        parameters,
        sites,
        RunState(server=start(to_vector(model))),
        audit_head=lambda: log.head().to_bytes(),
    )
    assert "update" in next(rounds).void
    assert {(refusal.code, refusal.sentence) for refusal in sites.refusals} == {
        ("UnableError", str(UnableError()))
    }
    assert not any(entry.confirmed for entry in sites.ledger("a").entries())


def test_a_forged_coordinator_head_is_noted_and_logged_and_the_round_goes_on(
    tmp_path, caplog
) -> None:
    sites, log = SessionSites(tmp_path), coordinator_log(tmp_path)
    head = log.head()
    forged = replace(head, number=7).to_bytes()
    study_rounds = run_study(
        STUDY,
        group_parameters(STUDY, sized_roster(SORTED, STUDY.digest), RUN),
        sites,
        RunState(server=start(to_vector(build_model(STUDY, len(feature_names(STUDY)), seed=0)))),
        audit_head=lambda: forged,
    )
    with caplog.at_level(logging.WARNING):
        assert next(study_rounds).void is None
    assert "is not signed by its identity" in caplog.text
    assert check_log(sites.log("a"), trusted=IDENTITIES["a"], owner="a").events["refused"] == 1


@pytest.mark.slow
def test_without_privacy_a_release_is_recorded_without_an_epsilon(tmp_path) -> None:
    study = with_changes(STUDY, privacy={"mode": "none"}, study={"rounds": 1})
    sites, log = SessionSites(tmp_path, study), coordinator_log(tmp_path)
    run(sites, log, study)
    assert {event.epsilon for event in events(sites.log("a"), Released)} == {None}


def test_sites_without_a_log_show_no_head(tmp_path) -> None:
    study = with_changes(STUDY, privacy={"mode": "none"}, study={"rounds": 1})
    sites, log = SessionSites(tmp_path, study, audited=False), coordinator_log(tmp_path)
    assert run(sites, log, study)[0].audit_heads == dict.fromkeys(study.sites, b"")
