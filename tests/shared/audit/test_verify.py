"""What 'audit verify' says in words."""

from pathlib import Path

import pytest

from consilium.shared.audit.check import AuditReport, Mismatch, Reason
from consilium.shared.audit.verify import head_from_hex, report_lines
from consilium.shared.errors import SettingsError


def report(**changes: object) -> AuditReport:
    given = {
        "owner": "a",
        "entries": 12,
        "head": bytes(32),
        "events": {},
        "anchors": 0,
        "healed": (),
        "diverged": (),
        "finding": None,
    }
    return AuditReport(**{**given, **changes})


def test_a_report_tells_of_anchors_heals_and_divergences():
    assert report_lines(report(), Path("x")) == ["x: 12 lines verify."]
    told = report_lines(report(anchors=3, healed=(4,), diverged=tuple(range(1, 12))), Path("x"))
    assert told[0] == "x: 12 lines verify, 3 of them confirmed by the other side."
    assert told[1] == "After a crash an unfinished line was replaced at line 4."
    assert "At line 1, 2, 3, 4, 5, 6, 7, 8 and 3 more the other side's log" in told[2]


def test_a_report_with_a_finding_does_not_say_that_all_is_well():
    found = Mismatch(line=13, reason=Reason.ALTERED, detail="its signature does not verify")
    assert report_lines(report(finding=found), Path("x")) == [
        "x: 12 lines verify, then one does not."
    ]
    assert str(found) == "line 13: altered: its signature does not verify"


@pytest.mark.parametrize("text", ["", "zz", "00", "ab" * 600])
def test_a_head_that_was_not_copied_whole_is_refused(text):
    with pytest.raises(SettingsError, match="is not an audit head; copy the whole line"):
        head_from_hex(text)
