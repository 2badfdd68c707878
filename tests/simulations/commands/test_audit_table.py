"""What an audit prints, and what it gives to programs."""

import json
import math

import pytest

from consilium.simulations.commands.audit_table import audit_record, show_audit
from consilium.simulations.experiments.audit_findings import Audit, AuditVerdict, Finding, verdict


def found(figure: AuditVerdict, *, low: float, high: float) -> Finding:
    return Finding(
        release="statistics",
        what="noise",
        claimed=1.0,
        measured=low,
        low=low,
        high=high,
        verdict=figure,
        convicts="below 0.9",
    )


def audit(*findings: Finding, epsilon_low: float = 2.0) -> Audit:
    return Audit(
        study="small",
        confidence=0.999,
        delta=1e-5,
        epsilon_claimed=8.0,
        epsilon_low=epsilon_low,
        findings=findings,
    )


def test_a_record_is_json_even_where_a_bound_is_infinite() -> None:
    record = audit_record(
        audit(found(AuditVerdict.CONVICTED, low=math.inf, high=math.inf), epsilon_low=math.inf)
    )
    parsed = json.loads(json.dumps(record, allow_nan=False))
    assert parsed["convicted"] is True
    assert parsed["epsilon_low"] is None
    assert parsed["findings"][0]["verdict"] == "convicted"
    assert parsed["findings"][0]["high"] is None


def test_the_table_has_every_verdict_and_the_bound(capsys: pytest.CaptureFixture[str]) -> None:
    shown = audit(
        found(AuditVerdict.CONSISTENT, low=0.9, high=1.1),
        found(AuditVerdict.NO_POWER, low=0.1, high=math.inf),
    )
    show_audit(shown)
    told = capsys.readouterr().out
    assert "no power" in " ".join(told.split())
    assert "at least 2.00" in " ".join(told.split())
    assert shown.convicted == ()


def test_a_verdict_convicts_whatever_its_power() -> None:
    assert verdict(refuted=True, powerful=False) is AuditVerdict.CONVICTED
    assert verdict(refuted=False, powerful=False) is AuditVerdict.NO_POWER
    assert verdict(refuted=False, powerful=True) is AuditVerdict.CONSISTENT
