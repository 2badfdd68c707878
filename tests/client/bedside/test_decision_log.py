"""The decision log: whole, keyed, rotated, deleted on its day, and a bar to scoring if wanted."""

import json
import os
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from consilium.client.bedside import decision_log
from consilium.client.bedside.decision_log import Decision, DecisionLog, Notes
from consilium.client.hospital.policy import DecisionPolicy
from consilium.shared.errors import AuditError

POLICY = DecisionPolicy()
DECISION = Decision(by="EHR, patient-view", model="ab" * 32, study="bedside", scored=True)


@dataclass(frozen=True)
class Said:
    patient_id: str = "MARK-patient"
    stay_id: str = "MARK-stay"
    inputs: bytes = b"MARK-inputs"


class Clock:
    def __init__(self) -> None:
        self.now = datetime(2026, 3, 1, 23, 59, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "decisions").glob("*.jsonl"))


def content(folder: Path) -> str:
    return "".join(path.read_text() for path in sorted((folder / "decisions").glob("*.jsonl")))


def test_a_line_says_who_asked_and_no_identifier_in_the_clear(tmp_path: Path) -> None:
    clock = Clock()
    log = DecisionLog(tmp_path, POLICY, clock)
    log.note(Said(), DECISION)
    log.note(Said(), replace(DECISION, scored=False))
    ((first, fits), (second, also)) = log.lines()
    assert fits
    assert also
    assert (first["by"], first["model"], first["result"]) == (DECISION.by, DECISION.model, "scored")
    assert (second["number"], second["result"]) == (2, "refused")
    assert first["at"] == "2026-03-01T23:59:00.000+00:00"
    assert first["patient"] == log.digest("patient", "MARK-patient") != first["stay"]
    assert "MARK" not in content(tmp_path)
    for path in (tmp_path / "decisions").iterdir():
        assert path.stat().st_mode & 0o077 == 0
    other = DecisionLog(tmp_path / "decisions", POLICY, clock)  # another site's key
    assert other.digest("patient", "MARK-patient") != first["patient"]


def test_the_policy_may_want_identifiers_in_the_clear(tmp_path: Path) -> None:
    DecisionLog(tmp_path, replace(POLICY, identifiers="clear")).note(Said(), DECISION)
    assert json.loads(content(tmp_path))["patient"] == "MARK-patient"


@pytest.mark.parametrize("harm", ["change", "remove", "insert", "forge"])
def test_a_line_that_was_changed_is_found(tmp_path: Path, harm: str) -> None:
    log = DecisionLog(tmp_path, POLICY, Clock())
    for _ in range(3):
        log.note(Said(), DECISION)
    (file,) = (tmp_path / "decisions").glob("*.jsonl")
    first, second, third = file.read_text().splitlines()
    changed = second.replace("patient-view", "order-select")
    lines = {
        "change": [first, changed, third],
        "remove": [first, third],
        "insert": [first, second, second, third],
        "forge": [first, second, third.replace('"scored"', '"refused"')],
    }[harm]
    file.write_text("\n".join(lines) + "\n")
    assert not all(fits for _, fits in log.lines())


def test_each_day_and_each_full_file_begins_another_and_the_chain_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decision_log, "MIB", 900)
    clock = Clock()
    log = DecisionLog(tmp_path, replace(POLICY, largest_mib=1), clock)
    for _ in range(3):
        log.note(Said(), DECISION)
    clock.now += timedelta(minutes=2)
    log.note(Said(), DECISION)
    clock.now -= timedelta(days=3)  # put back: nothing is written behind later lines
    log.note(Said(), DECISION)
    assert files(tmp_path) == [
        "2026-03-01-0001.jsonl", "2026-03-01-0002.jsonl", "2026-03-02-0001.jsonl",
    ]  # fmt: skip
    found = list(log.lines())
    assert [line["number"] for line, _ in found] == [1, 2, 3, 4, 5]
    assert all(fits for _, fits in found)


def test_what_is_older_than_the_policy_keeps_is_deleted(tmp_path: Path) -> None:
    clock = Clock()
    log = DecisionLog(tmp_path, replace(POLICY, keep_days=30), clock)
    log.note(Said(), DECISION)
    clock.now += timedelta(days=30)
    log.note(Said(), DECISION)
    assert len(files(tmp_path)) == 2
    clock.now += timedelta(days=1)
    assert log.delete_old() == 1
    ((line, fits),) = log.lines()
    assert (line["number"], fits) == (2, True)


def test_half_a_line_of_a_crash_is_cut_off(tmp_path: Path) -> None:
    log = DecisionLog(tmp_path, POLICY, Clock())
    log.note(Said(), DECISION)
    (file,) = (tmp_path / "decisions").glob("*.jsonl")
    with file.open("a") as opened:
        opened.write('{"number":2,"at":')
    log.note(Said(), DECISION)
    assert [(line["number"], fits) for line, fits in log.lines()] == [(1, True), (2, True)]


def test_where_it_cannot_be_noted_nobody_is_scored_if_the_policy_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    strict = Notes(tmp_path, POLICY, model="", study="bedside")
    lenient = Notes(tmp_path, replace(POLICY, required=False), model="", study="bedside")
    silent = Notes(tmp_path, None, model="", study="bedside")

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(AuditError, match="cannot be written"):
        strict.note(Said(), by="EHR", scored=True)
    lenient.note(Said(), by="EHR", scored=True)
    assert "a score is given that is not noted" in caplog.text
    silent.note(Said(), by="EHR", scored=True)
    monkeypatch.undo()
    strict.note(Said(), by="EHR", scored=True)
    assert content(tmp_path).count("\n") == 1


def test_a_key_that_is_gone_is_not_made_anew(tmp_path: Path) -> None:
    DecisionLog(tmp_path, POLICY).note(Said(), DECISION)
    (tmp_path / "decisions" / "key").unlink()
    with pytest.raises(AuditError, match="is missing beside its notes"):
        DecisionLog(tmp_path, POLICY)
