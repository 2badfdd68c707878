"""An audit as a table for the terminal, and as a record for programs."""

import math
from dataclasses import asdict
from typing import Any

from rich.box import SIMPLE_HEAD

from consilium.shared.service.terminal import Table
from consilium.simulations.commands.console import console
from consilium.simulations.experiments.audit_findings import Audit, AuditVerdict, Finding

WIDE = 120  # columns of a terminal that also show what would have been convicted
STYLES = {
    AuditVerdict.CONSISTENT: None,
    AuditVerdict.CONVICTED: "bold red",
    AuditVerdict.NO_POWER: "yellow",
}


def show_audit(audit: Audit) -> None:
    """Print the findings, release by release, and what they come to."""
    wide = console.width >= WIDE
    table = Table(box=SIMPLE_HEAD, padding=(0, 1))
    table.add_column("release, figure")
    for heading in ("claimed", "measured", "interval"):
        table.add_column(heading, justify="right")
    table.add_column("verdict")
    if wide:
        table.add_column("would convict")
    release = ""
    for found in audit.findings:
        if found.release != release:
            release = found.release
            table.add_row(release, style="bold")
        cells = (f"  {found.what}", f"{found.claimed:.4g}", f"{found.measured:.4g}")
        last = (found.convicts,) if wide else ()
        table.add_row(
            *cells, _interval(found), found.verdict.value, *last, style=STYLES[found.verdict]
        )
    console.print(table)
    console.print(
        f"{audit.study}: epsilon is at least {audit.epsilon_low:.2f} at delta {audit.delta:g}, and "
        f"{audit.epsilon_claimed:.2f} is claimed. An honest build passes all of this with "
        f"probability {audit.confidence:g} or more. Noise and shifts are in units of the bound on "
        "one patient's part; noise is one site's.",
        markup=False,
    )


def audit_record(audit: Audit) -> dict[str, Any]:
    """Return the audit as plain values; null stands for an interval's missing end."""
    record = asdict(audit)
    record["convicted"] = bool(audit.convicted)
    for finding in record["findings"]:
        finding["verdict"] = finding["verdict"].value
        for key in ("measured", "low", "high"):
            if not math.isfinite(finding[key]):
                finding[key] = None
    if not math.isfinite(record["epsilon_low"]):
        record["epsilon_low"] = None
    return record


def _interval(found: Finding) -> str:
    if math.isinf(found.high):
        return f">= {found.low:.4g}"
    return f"{found.low:.3g} to {found.high:.3g}"
