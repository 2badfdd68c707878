"""``audit verify`` for both commands: our log against itself and, where at hand, the other side's.

Each log is also checked against the heads that the other has recorded of it.
"""

from dataclasses import dataclass
from pathlib import Path

from shared.audit_check import AuditReport, check_log
from shared.audit_reading import identities_of, recorded_heads


@dataclass(frozen=True, kw_only=True)
class Side:
    """A log, whose it is, and the identity (32 bytes) that is trusted to sign it."""

    path: Path
    owner: str
    identity: bytes


def verify_both(own: Side, other: Side | None) -> tuple[AuditReport, AuditReport | None]:
    """Return what is found in our log and in the other side's.

    Raises:
        AuditError: a file cannot be read.
    """
    if other is None:
        return check_log(own.path, trusted=own.identity, owner=own.owner), None
    return _against(own, other), _against(other, own)


def _against(checked: Side, witness: Side) -> AuditReport:
    identities = (checked.identity, *identities_of(checked.path))
    anchors = recorded_heads(witness.path, owner=checked.owner, identities=identities)
    return check_log(checked.path, trusted=checked.identity, owner=checked.owner, anchors=anchors)


def report_lines(report: AuditReport, path: Path) -> list[str]:
    """Say in plain words what was found."""
    told = [
        f"{path}: {report.entries} entries of {report.owner or 'nobody known'} verify"
        + (f", {report.anchors} of them confirmed by the other side" if report.anchors else "")
        + "."
    ]
    if report.healed:
        told.append(f"After a crash an unfinished line was replaced at {_lines(report.healed)}.")
    if report.diverged:
        told.append(
            f"At {_lines(report.diverged)} the other side's log did not continue what it had "
            "shown; ask for it, and verify with --peer."
        )
    if report.finding is not None:
        told.append(f"NOT WHOLE: {report.finding}.")
    return told


def _lines(numbers: tuple[int, ...]) -> str:
    shown = ", ".join(map(str, numbers[:8]))
    return f"line {shown}" + (f" and {len(numbers) - 8} more" if numbers[8:] else "")
