"""What must be so at both ends after anything: nothing released twice, nothing unrecorded."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

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


def check_books(
    federation: Federation, *, private: bool = True, lost: Mapping[str, Path] | None = None
) -> None:
    """Check audit logs and ledgers of all sites and the coordinator against each other.

    Args:
        federation: none of its processes runs.
        private: whether its studies have budgets.
        lost: folders of machines that were lost and are not in the federation, by site.
    """
    theirs = federation.coordinator / "audit.jsonl"
    coordinator = SiteFolder(path=federation.site(next(iter(federation.sites)))).enrolment()
    identity = coordinator.coordinator
    closed = [event for event in events(theirs) if isinstance(event, RoundClosed)]
    heads = []
    for name in federation.sites:
        rounds: Counter[tuple[bytes, int]] = Counter()
        for folder in (*((lost[name],) if name in (lost or {}) else ()), federation.site(name)):
            site = SiteFolder(path=folder)
            own, public = site.path / "audit.jsonl", site.identity().public
            seen = recorded_heads(theirs, owner=name, identities=[public])
            report = check_log(own, trusted=public, owner=name, anchors=seen)
            assert report.finding is None, f"{name}: {report.finding}"
            assert not report.diverged, f"{name}: the coordinator's log went back"
            heads += recorded_heads(own, owner="coordinator", identities=[identity])
            released = {(e.study_hash, e.round) for e in events(own) if isinstance(e, Released)}
            rounds.update((e.study_hash, e.round) for e in events(own) if isinstance(e, Released))
            if private:
                _check_ledger(name, site, released)
        _check_rounds(name, rounds, closed)
    report = check_log(theirs, trusted=identity, owner="coordinator", anchors=heads)
    assert report.finding is None, f"coordinator: {report.finding}"


def _check_rounds(name: str, rounds: Counter[tuple[bytes, int]], closed: list[RoundClosed]) -> None:
    """Every round once; every survivor released."""
    assert max(rounds.values(), default=0) <= 1, f"{name} released a round twice"
    for event in closed:
        if name in event.survivors:
            assert rounds[event.study_hash, event.round] == 1, f"{name} {event.round}"


def _check_ledger(name: str, site: SiteFolder, released: set[tuple[bytes, int]]) -> None:
    """Every release in the ledger before it left; no study above its budget."""
    ledger = own_ledger(site)
    charged = {(entry.release.study_hash, entry.release.round) for entry in ledger.entries()}
    assert released <= charged, f"{name} released what it had not charged"
    for study in ledger.summary().studies:
        account = study.account
        assert account.spent + account.reserved <= account.bound * (1 + 1e-6)


def own_ledger(site: SiteFolder) -> Ledger:
    """A site's ledger, with the bounds of its policy."""
    policy = site.policy()
    return Ledger(
        site.path / "ledger.sqlite", lifetime_epsilon=policy.lifetime_epsilon, delta=policy.delta
    )
