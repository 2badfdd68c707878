"""Counting first, through real processes: the study rests, shows totals, and can end there."""

import json
from pathlib import Path

import pytest

from tests.deployment.federation import SITES, Federation, tiny_study, write_records

PATIENTS = 30


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_study_is_counted_rests_and_ends_and_each_hospital_knows_its_own_cohort(
    tmp_path: Path,
) -> None:
    write_records(tmp_path / "records", patients=PATIENTS, seed=1)
    federation = Federation(tmp_path / "f", tmp_path / "records")
    text = tiny_study(rounds=2, mode="site")
    federation.prepare(text + "[feasibility]\nepsilon = 0.5\nsmallest_cell = 20\n")
    try:
        federation.start("coordinator")
        for site in SITES:
            federation.start(site)
        federation.wait_for(lambda: federation.state_of() == "paused", "the count", 60)
        found = json.loads(federation.operator("feasibility", "tiny", "--json"))
        own = federation.hospital("north", "approve", "tiny", "--yes")
        state = json.loads(federation.hospital("north", "status", "--json"))
        federation.operator("stop", "tiny")
        federation.wait_for(lambda: federation.state_of() == "stopped", "the end", 30)
    finally:
        federation.close()
    assert found["sites"] == sorted(SITES)
    assert [total["name"] for total in found["totals"]][2:] == ["HR", "GCS", "Age"]
    assert all(total["persons"] is None or total["persons"] >= 20 for total in found["totals"])
    assert f"exact and shown here alone: {PATIENTS}; with an outcome" in " ".join(own.split())
    [study] = state["approved"]
    assert study["cohort"]["approved"]["persons"] == PATIENTS
    assert study["cohort"]["moved"] == ""
    assert state["last_release"]["purpose"] == "feasibility"
    assert state["last_release"]["epsilon"] == pytest.approx(0.5, rel=1e-3)
    marks = [str(study["cohort"]["approved"][key]) for key in ("fingerprint", "at")]
    said = "".join(federation.said(name) for name in ("coordinator", *SITES))
    assert not any(mark in said for mark in marks)
