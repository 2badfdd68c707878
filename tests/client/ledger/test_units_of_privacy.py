"""A study of recordings says so wherever its epsilon stands; one of patients says nothing new."""

import sqlite3
from pathlib import Path

import pytest
from rich.console import Console

from consilium.client.commands.review import review_lines
from consilium.client.ledger import view
from consilium.client.ledger.releases import Release, charges_to_json, releases_charged
from consilium.client.ledger.store import Ledger
from consilium.client.round.charges import round_charges
from consilium.shared.audit.events import Charged
from consilium.shared.privacy.accounting import PrivacyEvent
from consilium.shared.rounds.contents import Purpose, RoundConfiguration
from consilium.shared.study.definition import Study, parse_canonical, with_changes
from consilium.simulations.report.privacy_statement import statement
from tests.simulations.report.made_up import demo_study, record_of

EVENT = PrivacyEvent(sampling_rate=0.1, noise_multiplier=2.0, steps=10)
CAVEAT = "of a person with k recordings epsilon bounds k times as much"


def both() -> tuple[Study, Study]:
    plain = demo_study()
    return plain, with_changes(plain, privacy={"unit": "recording"})


def release(name: str, unit: str) -> Release:
    return Release(
        study_digest=name.encode().ljust(32, b"."), study_hash=name.encode().ljust(32, b"-"),
        study_name=name, round=1, purpose="training", events=(EVENT,), shards=(0, 80), unit=unit,
    )  # fmt: skip


def ledger(path: Path) -> Ledger:
    return Ledger(path, lifetime_epsilon=16.0, delta=1e-5)


def test_the_digest_of_a_study_of_patients_does_not_know_of_units() -> None:
    plain, recordings = both()
    assert b'"unit":"patient"' not in plain.to_canonical_json()
    assert plain.digest != recordings.digest
    for study in (plain, recordings):
        assert parse_canonical(study.to_canonical_json()) == study


def test_review_and_report_say_what_the_guarantee_is_of() -> None:
    plain, recordings = both()
    for study, each in ((plain, "each of your patients"), (recordings, "each of your recordings")):
        said = "\n".join(review_lines(study))
        told = " ".join(s for _, part in statement(study, record_of(study)) for s in part)
        assert each in said
        assert (CAVEAT in said) == (CAVEAT in told) == (study is recordings)
        assert f"Whether a {study.privacy.unit} was in training" in told


def test_the_ledger_keeps_a_studys_unit_and_shows_it(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    opened = ledger(path)
    for one in (release("scans", "recording"), release("stays", "patient")):
        opened.reserve(one, study_epsilon=8.0, study_delta=1e-5)
    summary = ledger(path).summary()
    assert {s.study_name: s.unit for s in summary.studies} == {
        "scans": "recording", "stays": "patient",
    }  # fmt: skip
    console = Console(width=80)
    with console.capture() as capture:
        console.print(view.to_table(summary))
    shown = capture.get()
    assert "recording" in shown
    assert max(map(len, shown.splitlines())) <= 80
    assert any("scans: epsilon is of one recording" in line for line in view.to_bars(summary))
    assert [study["unit"] for study in view.to_json(summary)["studies"]] == ["recording", "patient"]


def test_a_ledger_of_before_opens_and_its_studies_are_of_patients(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    ledger(path).reserve(release("stays", "patient"), study_epsilon=8.0, study_delta=1e-5)
    with sqlite3.connect(path) as written:
        written.execute("DROP TABLE units")
    assert [study.unit for study in ledger(path).summary().studies] == ["patient"]


@pytest.mark.parametrize("unit", ["patient", "recording"])
def test_the_audit_log_charges_a_lost_ledger_with_the_same_unit(unit: str) -> None:
    one = release("scans", unit)
    text = charges_to_json([one])
    assert ("recording" in text) == (unit == "recording")
    charged = Charged(
        study=one.study_name, study_digest=one.study_digest, study_hash=one.study_hash,
        round=one.round, charges=text, study_epsilon=8.0, study_delta=1e-5, own_part=b"",
    )  # fmt: skip
    assert releases_charged(charged) == (one,)


def test_a_rounds_charges_have_the_studys_unit() -> None:
    asked = RoundConfiguration(purpose=Purpose.TRAINING)
    for study in both():
        charges = round_charges(study, asked, 1, b"x" * 32)
        assert {one.unit for one in charges} == {study.privacy.unit}
