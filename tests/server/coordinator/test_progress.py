"""How far a study is, as its own sites are told who send notices of it."""

import json

import pytest

from consilium.server.coordinator.register import State
from consilium.server.coordinator.round_records import void_rounds
from consilium.shared.enrolment.messages import MOST_VOIDS, StudyProgress, StudyRequest
from consilium.shared.errors import SettingsError
from tests.server.coordinator.test_declarations import STUDY, Desk


def test_a_studys_own_site_is_told_its_state_and_void_rounds_also_once_it_has_ended(tmp_path):
    desk = Desk(tmp_path)
    file = tmp_path / "rounds.jsonl"
    records = [{"round": n, "void": "a reason" if n % 2 else None} for n in range(1, 301)]
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    object.__setattr__(desk.service, "voids", lambda _: void_rounds(file))
    desk.register.note(STUDY.digest, State.FINISHED, "a detail")
    request = StudyRequest(digest=STUDY.digest).to_bytes()
    reply = desk.service.progress(desk.member("a"), request)
    told = StudyProgress.from_bytes(reply)
    assert told.state == "finished"
    assert told.void_rounds == tuple(range(301 - 2 * MOST_VOIDS, 300, 2))
    assert b"reason" not in reply
    assert b"detail" not in reply


def test_a_study_of_others_is_not_told(tmp_path):
    desk = Desk(tmp_path)
    with pytest.raises(SettingsError, match="no study 0000000000000000 names site a"):
        desk.service.progress(desk.member("a"), StudyRequest(digest=bytes(32)).to_bytes())
