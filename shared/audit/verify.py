"""``audit verify`` for both commands: our log against itself and, where at hand, the other side's.

Each log is also checked against the heads that the other has recorded of it.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from consilium.shared.audit.check import AuditReport, check_log
from consilium.shared.audit.heads import AuditHead
from consilium.shared.audit.reading import identities_of, recorded_heads
from consilium.shared.errors import AuditError, MessageError, SettingsError


@dataclass(frozen=True, kw_only=True)
class Side:
    """A log, its owner, and the identity (32 bytes) that is trusted to sign it."""

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


def show_reports(own: Side, other: Side | None, console: Console, *, as_json: bool) -> None:
    """Print what is found in one or both logs.

    Raises:
        AuditError: a line does not fit; it is named.
    """
    ours, theirs = verify_both(own, other)
    found = [(own.path, ours)]
    if other is not None and theirs is not None:
        found.append((other.path, theirs))
    if as_json:
        console.print_json(json.dumps([_to_json(report, path) for path, report in found]))
    else:
        for path, report in found:
            for line in report_lines(report, path):
                console.print(line, markup=False)
    for path, report in found:
        if report.finding is not None:
            raise AuditError(f"audit log {path}: {report.finding}")


def head_from_hex(text: str) -> AuditHead:
    """Read a head as ``consilium-coordinator audit head`` prints it.

    Raises:
        SettingsError: it is not one.
    """
    try:
        return AuditHead.from_bytes(bytes.fromhex(text.strip()))
    except (ValueError, MessageError) as error:
        raise SettingsError("--head: is not an audit head; copy the whole line") from error


def _to_json(report: AuditReport, path: Path) -> dict[str, Any]:
    finding = report.finding
    return {
        "path": str(path),
        "owner": report.owner,
        "entries": report.entries,
        "head": report.head.hex(),
        "events": report.events,
        "anchors": report.anchors,
        "healed": report.healed,
        "diverged": report.diverged,
        "finding": finding
        and {"line": finding.line, "reason": finding.reason.value, "detail": finding.detail},
    }


def report_lines(report: AuditReport, path: Path) -> list[str]:
    """Say in plain words what was found."""
    lines = [
        f"{path}: {report.entries} lines verify"
        + (f", {report.anchors} of them confirmed by the other side" if report.anchors else "")
        + ("." if report.finding is None else ", then one does not.")
    ]
    if report.healed:
        lines.append(f"After a crash an unfinished line was replaced at {_lines(report.healed)}.")
    if report.diverged:
        lines.append(
            f"At {_lines(report.diverged)} the other side's log did not continue what it had "
            "shown; ask for it, and verify with --peer."
        )
    return lines


def _lines(numbers: tuple[int, ...]) -> str:
    shown = ", ".join(map(str, numbers[:8]))
    return f"line {shown}" + (f" and {len(numbers) - 8} more" if numbers[8:] else "")
