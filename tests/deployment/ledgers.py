"""What must be so at both ends after anything: nothing released twice, nothing unrecorded."""

from collections import Counter

from consilium.client.hospital.folder import SiteFolder
from consilium.client.ledger.store import Ledger
from consilium.shared.audit.check import check_log
from consilium.shared.audit.entry import AuditEntry
from consilium.shared.audit.events import Released, RoundClosed
from consilium.shared.audit.reading import read_lines, recorded_heads
from tests.deployment.federation import Federation


def events(path):
    """The events of an audit log, in order."""
    return [AuditEntry.from_line(line).event for line in read_lines(path)]


def check_books(federation: Federation, *, private: bool = True) -> None:
    """Check audit logs and ledgers of all sites and the coordinator against each other."""
    theirs = federation.coordinator / "audit.jsonl"
    coordinator = SiteFolder(path=federation.site(next(iter(federation.sites)))).enrolment()
    identity = coordinator.coordinator
    closed = [event for event in events(theirs) if isinstance(event, RoundClosed)]
    heads = []
    for name in federation.sites:
        site = SiteFolder(path=federation.site(name))
        own, public = site.path / "audit.jsonl", site.identity().public
        seen = recorded_heads(theirs, owner=name, identities=[public])
        report = check_log(own, trusted=public, owner=name, anchors=seen)
        assert report.finding is None, f"{name}: {report.finding}"
        assert not report.diverged, f"{name}: the coordinator's log went back"
        heads += recorded_heads(own, owner="coordinator", identities=[identity])
        released = [event for event in events(own) if isinstance(event, Released)]
        _check_site(name, site, released, closed, private=private)
    report = check_log(theirs, trusted=identity, owner="coordinator", anchors=heads)
    assert report.finding is None, f"coordinator: {report.finding}"


def _check_site(name, site, released, closed, *, private):
    """Every round once; every release in the ledger before it left; every survivor released."""
    rounds = Counter((event.study_hash, event.round) for event in released)
    assert max(rounds.values(), default=0) <= 1, f"{name} released a round twice"
    for event in closed:
        if name in event.survivors:
            assert rounds[event.study_hash, event.round] == 1, f"{name} {event.round}"
    if not private:
        return
    policy = site.policy()
    ledger = Ledger(
        site.path / "ledger.sqlite", lifetime_epsilon=policy.lifetime_epsilon, delta=policy.delta
    )
    charged = {(entry.release.study_hash, entry.release.round) for entry in ledger.entries()}
    assert set(rounds) <= charged, f"{name} released what it had not charged"
    for study in ledger.summary().studies:
        account = study.account
        assert account.spent + account.reserved <= account.bound * (1 + 1e-6)
