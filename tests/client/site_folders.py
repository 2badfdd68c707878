"""An enrolled site's folder, with a coordinator's log beside it; no network."""

from pathlib import Path

from consilium.client.hospital.folder import Enrolment, SiteFolder
from consilium.client.secure_sum.journal import RoundJournal
from consilium.shared.audit.anchors import Anchors
from consilium.shared.audit.events import Released
from consilium.shared.audit.log import AuditLog
from consilium.shared.crypto.keys import IdentityKey

COORDINATOR = IdentityKey.from_seed(b"c" * 32)
RUN = b"r" * 32


def enrolled(path: Path, site: str = "north") -> SiteFolder:
    """A site that is enrolled and has a log."""
    folder = SiteFolder.make(path, site=site)
    folder.pin(
        Enrolment(
            site=site,
            node_id=bytes(8),
            host="coordinator.example.org",
            port=9092,
            coordinator=COORDINATOR.public,
            authority=b"certificate",
        )
    )
    log_of(folder)
    return folder


def log_of(folder: SiteFolder) -> AuditLog:
    return AuditLog(
        folder.path / "audit.jsonl",
        owner=folder.enrolment().site,
        key=folder.identity(),
        version="0.1.0",
    )


def coordinator_log(path: Path) -> AuditLog:
    return AuditLog(path, owner="coordinator", key=COORDINATOR, version="0.1.0")


def released(round: int, epsilon: float | None = 1.0) -> Released:
    return Released(
        study_digest=bytes(32),
        study_hash=RUN,
        round=round,
        purpose="training",
        message_digest=bytes(32),
        epsilon=epsilon,
        delta=1e-5,
    )


def exchange(site: AuditLog, coordinator: AuditLog) -> None:
    """One round: both show their heads, both record the other's; the round is claimed."""
    RoundJournal(site.path.parent / "journal.sqlite").raise_to(RUN, 1)
    keys = {"coordinator": COORDINATOR.public, site.owner: site._key.public}
    assert (
        Anchors(site).record({"coordinator": coordinator.head().to_bytes()}, keys, study_digest=RUN)
        == {}
    )
    head = site.append(released(1, None))
    assert Anchors(coordinator).record({site.owner: head.to_bytes()}, keys, study_digest=RUN) == {}
