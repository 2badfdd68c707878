"""The process of a study with real sessions and a real register: garbage, and what is told."""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from consilium.server.coordinator.enrolment import submit
from consilium.server.coordinator.folder import CoordinatorFolder, Settings
from consilium.server.coordinator.register import Register, State, Wanted
from consilium.server.coordinator.round_records import recent_records, rounds_file
from consilium.server.service.operator_page import read_page
from consilium.server.service.overview import status
from consilium.server.service.study_process import StudyProcess
from consilium.server.study.checkpoints import load_checkpoint
from consilium.shared.audit.entry import AuditEntry
from consilium.shared.audit.events import LeftOut, StudyChanged
from consilium.shared.audit.log import FILE_NAME
from consilium.shared.audit.own_log import open_audit
from consilium.shared.audit.reading import read_lines
from consilium.shared.secure_sum.messages import Action, MaskedUpdate
from consilium.shared.study.definition import parse_study
from tests.client.hospital.test_round_audit import KEYS, SORTED, SessionSites
from tests.rosters import sized_roster

TEXT = """
name = "voided"
title = "Voided"
rounds = 12
sites = ["a", "b", "c", "d"]
[data]
source = "synthetic-icu"
label = "In-hospital_death"
window_h = 6
[model]
hidden = 4
[training]
local_steps = 1
[privacy]
mode = "none"
[aggregation]
minimum_sites = {minimum}
[variables]
HR = {{ unit = "/min", low = 10, high = 300, center = 85, spread = 18 }}
"""


class Garbling(SessionSites):
    """Sessions of which one sends garbage from a round on: one bit of its vector is wrong."""

    liar, since = "c", 3

    def ask(
        self, action: Action, bodies: Mapping[str, bytes], *, timeout_s: float
    ) -> Iterator[tuple[str, bytes]]:
        for site, reply in super().ask(action, bodies, timeout_s=timeout_s):
            if (site, action) == (self.liar, Action.UPDATE):
                masked = MaskedUpdate.from_bytes(reply)
                if masked.round >= self.since:  # the last byte is of the last check coordinate
                    wrong = masked.packed[:-1] + bytes([masked.packed[-1] ^ 1])
                    reply = replace(masked, packed=wrong).to_bytes()
            yield site, reply


def run(path: Path, minimum: int) -> tuple[CoordinatorFolder, Register, bytes]:
    text = TEXT.format(minimum=minimum)
    study = parse_study(text)
    settings = Settings(name="c", host="localhost", port=9092, listen="127.0.0.1")
    folder = CoordinatorFolder.make(path / "coordinator", settings, ("localhost",))
    register, log = folder.register(), open_audit(folder)
    for node, site in enumerate(study.sites, start=1):
        register.invite(site, b"secret", expires=1e12)
        register.enrol(site, identity=KEYS[site].public, node_key=site.encode(), node_id=node,
                       version="0.1.0", now=0.0)  # fmt: skip
    submit(register, folder.identity(), log, study, text.encode())
    roster = sized_roster(SORTED, study.digest)
    for site, declared in zip(roster.names, roster.declared, strict=True):
        register.declare(study.digest, site, declared)
    [submitted] = register.studies()
    place = folder.study(submitted.digest)
    place.mkdir(parents=True, exist_ok=True)
    StudyProcess(register, submitted, place, log).run(Garbling(path, study), 5.0)
    return folder, register, submitted.digest


def events(folder: CoordinatorFolder, kind: type) -> list:
    found = [AuditEntry.from_line(line).event for line in read_lines(folder.path / FILE_NAME)]
    return [event for event in found if isinstance(event, kind)]


@pytest.mark.slow
def test_a_study_goes_on_without_the_sender_of_garbage_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        folder, register, digest = run(tmp_path, 3)
    [study] = register.studies()
    assert study.state is State.FINISHED
    records = recent_records(rounds_file(folder, digest), 99)
    assert records[0]["left_out"] == ["c"]
    assert records[0]["sites"] == ["a", "b", "d"]
    assert sum(record["void"] is not None for record in records) <= 5
    noted = events(folder, LeftOut)
    assert noted[0].narrowing
    assert (noted[-1].sites, noted[-1].narrowing) == (("c",), False)
    assert "goes on without c" in caplog.text
    found = load_checkpoint(folder.study(digest))
    assert found is not None
    assert found.state.left_out == ("c",)
    page = read_page(folder, status(folder, register), [])
    assert "left out: may send garbage" in page
    assert "without c: they send garbage" in page


@pytest.mark.slow
def test_a_study_that_cannot_do_without_the_suspects_stops_and_names_them(tmp_path: Path) -> None:
    folder, register, _ = run(tmp_path, 4)
    [study] = register.studies()
    assert (study.state, study.wanted) == (State.STOPPED, Wanted.STOP)
    assert "sends garbage into the sums" in study.detail
    assert "where a sum needs 4" in study.detail
    assert events(folder, StudyChanged)[-1].state == "stopped"
