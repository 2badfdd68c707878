"""A study that counts first rests after it, and goes on only when told to."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from consilium.server.cli import app
from consilium.server.coordinator.enrolment import submit
from consilium.server.coordinator.folder import CoordinatorFolder, Settings
from consilium.server.coordinator.register import State, Wanted
from consilium.server.coordinator.round_records import RECORDS
from consilium.server.service.study_process import StudyProcess
from consilium.server.study.checkpoints import load_checkpoint, save_checkpoint
from consilium.shared.audit.own_log import open_audit
from consilium.shared.errors import SettingsError
from consilium.shared.privacy.accounting import plan
from consilium.shared.study.definition import parse_study
from tests.client.hospital.test_round_audit import KEYS, SORTED, SessionSites
from tests.rosters import sized_roster

TEXT = """
name = "counted"
title = "Counted"
rounds = 1
sites = ["a", "b", "c", "d"]
[data]
source = "synthetic-icu"
label = "In-hospital_death"
window_h = 6
[model]
hidden = 4
[training]
local_steps = 1
[variables]
HR = { unit = "/min", low = 10, high = 300, center = 85, spread = 18 }
"""
COUNTED = TEXT + "[feasibility]\nepsilon = 1.0\n"


class Coordinator:
    """A coordinator's folder with one study, whose sites are sessions in this process."""

    def __init__(self, path: Path, text: str) -> None:
        self.path, self.study = path, parse_study(text)
        settings = Settings(name="c", host="localhost", port=9092, listen="127.0.0.1")
        self.folder = CoordinatorFolder.make(path / "coordinator", settings, ("localhost",))
        self.register, self.log = self.folder.register(), open_audit(self.folder)
        for node, site in enumerate(self.study.sites, start=1):
            self.register.invite(site, b"secret", expires=1e12)
            self.register.enrol(site, identity=KEYS[site].public, node_key=site.encode(),
                                node_id=node, version="0.1.0", now=0.0)  # fmt: skip
        submit(self.register, self.folder.identity(), self.log, self.study, text.encode())
        self.place = self.folder.study(self.study.digest)
        self.place.mkdir(parents=True, exist_ok=True)

    def approve(self) -> SessionSites:
        roster = sized_roster(SORTED, self.study.digest)
        for site, declared in zip(roster.names, roster.declared, strict=True):
            self.register.declare(self.study.digest, site, declared)
        return SessionSites(self.path, self.study)

    def run(self, sites: SessionSites) -> State:
        [submitted] = self.register.studies()
        StudyProcess(self.register, submitted, self.place, self.log).run(sites, 5.0)
        return self.register.studies()[0].state

    def told(self, *words: str) -> str:
        folder = str(self.folder.path)
        asked = ["feasibility", self.study.name, "--folder", folder, *words]
        result = CliRunner().invoke(app, asked, catch_exceptions=False)
        assert result.exit_code == 0
        return result.output

    def purposes(self) -> list[str]:
        lines = (self.place / RECORDS).read_text().splitlines()
        return [json.loads(line)["purpose"] for line in lines]


@pytest.mark.slow
def test_the_study_rests_after_the_count_and_trains_once_it_is_resumed(tmp_path: Path) -> None:
    made = Coordinator(tmp_path, COUNTED)
    with pytest.raises(SettingsError, match="its persons are not counted yet; it is submitted"):
        made.told()
    sites = made.approve()
    assert made.run(sites) is State.PAUSED
    [study] = made.register.studies()
    assert (study.wanted, made.purposes()) == (Wanted.PAUSE, ["feasibility"])
    assert "the cohort is counted" in study.detail

    found = json.loads(made.told("--json"))
    assert (found["epsilon"], found["smallest_cell"]) == (1.0, 10)
    assert found["sites"] == ["a", "b", "c", "d"]
    kinds = [(total["kind"], total["name"]) for total in found["totals"]]
    assert kinds == [("persons", ""), ("outcome", "In-hospital_death"), ("variable", "HR")]
    assert all(total["persons"] is None or total["persons"] >= 10 for total in found["totals"])
    assert min(total["error"] for total in found["totals"]) > 10
    shown = " ".join(made.told().split())
    assert "with HR measured" in shown
    assert "Suppressed: below 10, noise included; that is not zero." in shown
    assert "for epsilon 1 of the study's 8" in shown
    assert "The study rests: 'resume' goes on" in shown

    [spent] = sites.ledger("a").summary().studies
    assert spent.account.spent == pytest.approx(1.0, rel=1e-3)
    made.register.want(made.study.digest, Wanted.RUN)
    assert made.run(sites) is State.FINISHED
    assert made.purposes() == ["feasibility", "statistics", "training"]
    [spent] = sites.ledger("a").summary().studies
    assert spent.account.spent <= made.study.privacy.epsilon
    assert spent.account.spent == pytest.approx(plan(made.study).epsilon, rel=1e-3)
    assert json.loads(made.told("--json")) == found
    assert sites.refusals == []


def test_a_count_that_a_crash_cut_off_is_lost_not_asked_again_and_training_waits(
    tmp_path: Path,
) -> None:
    made = Coordinator(tmp_path, COUNTED)
    sites = made.approve()
    assert made.run(sites) is State.PAUSED
    kept = load_checkpoint(made.place)
    begun = kept.state.__class__(server=kept.state.server)
    save_checkpoint(  # as a process leaves it that died amidst the count
        made.place, kept.__class__(study_digest=kept.study_digest, run_id=kept.run_id, state=begun)
    )
    (made.place / RECORDS).unlink()
    made.register.want(made.study.digest, Wanted.RUN)
    assert made.run(sites) is State.PAUSED
    with pytest.raises(
        SettingsError, match=r"is void .*the study's process ended.* answer it once"
    ):
        made.told()
    assert load_checkpoint(made.place).state.counted == 1


def test_a_study_without_the_table_says_that_nobody_approved_to_be_counted(tmp_path: Path) -> None:
    made = Coordinator(tmp_path, TEXT)
    with pytest.raises(SettingsError, match=r"has no \[feasibility\], so no hospital approved"):
        made.told()
