"""The operator's page: viewers look, operators act, each act confirmed and under a name."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from consilium.server.cli import app
from consilium.server.commands.persons import ROLES
from consilium.server.coordinator.folder import CoordinatorFolder
from consilium.server.coordinator.register import Wanted
from consilium.server.service.supervisor import Supervisor
from consilium.server.web.pages import coordinator_application
from consilium.shared.audit.events import Acted
from consilium.shared.audit.recent import recent_entries
from consilium.shared.service.command_line import command_of
from consilium.shared.web.users import Users
from tests.client.web.made_up import TEXT
from tests.server.web.made_up import make_coordinator
from tests.web_served import PASSWORD, QUICK, Person, served

EVIL = "<script>document.title='broken'</script>"
STUDY = TEXT.replace("Death in the intensive-care unit", EVIL)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CoordinatorFolder:
    monkeypatch.setattr("getpass.getuser", lambda: "ops")
    made = make_coordinator(tmp_path / "coordinator", STUDY, version=f"0.1{EVIL}")
    users = Users(made.path, ROLES, command="x", cost=QUICK)
    users.set("Vera", "viewer", PASSWORD)
    users.set("Olga", "operator", PASSWORD)
    return made


@pytest.fixture
def address(folder: CoordinatorFolder) -> Iterator[str]:
    with served(coordinator_application(folder)) as found:
        yield found


def acts(folder: CoordinatorFolder) -> list[tuple[str, str, str]]:
    entries = recent_entries(folder.path / "audit.jsonl", 1000)
    found = [one.event for one in reversed(entries) if isinstance(one.event, Acted)]
    return [(one.by, one.act, one.subject) for one in found]


def test_a_viewer_sees_what_the_monitor_shows_and_can_do_nothing(
    folder: CoordinatorFolder, address: str
) -> None:
    vera = Person(address, "Vera")
    shown = vera.get("/overview").text
    for part in ("Enrolled sites", "11 of 40 training rounds", "validation AUROC", "Vera, viewer"):
        assert part in shown, part
    assert "<script" not in shown
    assert shown.count("&lt;script&gt;") == 5  # version of four sites, title
    assert "Actions" not in shown
    assert vera.get("/actions").status_code == 403
    digest = folder.register().study("sepsis").digest.hex()
    for path, fields in (("study", {"digest": digest, "wanted": "stop", "sure": "yes"}),
                         ("revoke", {"site": "north", "again": "north"})):  # fmt: skip
        assert vera.post(f"/actions/{path}", **fields).status_code == 403
    assert folder.register().study("sepsis").wanted is Wanted.RUN
    assert acts(folder) == []


def test_an_operator_pauses_and_stops_a_study_under_their_name(
    folder: CoordinatorFolder, address: str
) -> None:
    olga, digest = Person(address, "Olga"), folder.register().study("sepsis").digest.hex()
    sent = {"digest": digest, "wanted": "pause"}
    assert "was not ticked" in olga.post("/actions/study", **sent).text
    assert "choose what is to happen" in olga.post(
        "/actions/study", **sent | {"wanted": "x", "sure": "yes"}
    ).text  # fmt: skip
    told = olga.post("/actions/study", **sent, sure="yes").text
    assert "Study sepsis will pause after the round it is in." in told
    assert "wanted: pause" in told
    olga.post("/actions/study", **sent | {"wanted": "stop"}, sure="yes")
    assert folder.register().study("sepsis").wanted is Wanted.STOP
    subject = f"sepsis ({digest[:16]})"
    by = "Olga (operator) (account ops)"
    assert acts(folder) == [(by, "pause", subject), (by, "stop", subject)]


def test_an_operator_revokes_a_site_whose_name_was_typed(
    folder: CoordinatorFolder, address: str
) -> None:
    olga = Person(address, "Olga")
    for fields in ({"again": "nord"}, {"again": "north", "reason": "a\nb"}, {"again": ""}):
        assert olga.post("/actions/revoke", site="north", **fields).status_code == 409
    assert all(one.revoked is None for one in folder.register().members())
    told = olga.post("/actions/revoke", site="north", again="north", reason=EVIL).text
    assert "Site north is revoked" in told
    assert "<option value='north'" not in told
    assert acts(folder)[-1] == ("Olga (operator) (account ops)", "revoke", "north")
    assert "&lt;script&gt;" in olga.get("/overview").text


def test_the_monitors_page_says_where_to_sign_in_once_somebody_can(
    folder: CoordinatorFolder,
) -> None:
    supervisor = Supervisor(folder, patience_s=1.0)
    assert "consilium-coordinator web" in supervisor._page({}, [])
    (folder.path / "web-users.json").unlink()
    from consilium.server.service.overview import status

    assert "Enrolled sites" in supervisor._page(status(folder, folder.register()), [])


@pytest.mark.slow
def test_persons_are_added_by_command(
    folder: CoordinatorFolder, address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out, into = os.pipe()
    os.write(into, PASSWORD.encode())
    os.close(into)
    at = ["--folder", str(folder.path)]
    add = ["web-user", "add", "Nils", "--role", "viewer", "--password-fd", str(out), *at]
    command_of(app)(add, standalone_mode=False)
    os.close(out)
    assert Person(address, "nils").answer.status_code == 303
    command_of(app)(["web-user", "list", *at], standalone_mode=False)
    assert "viewer     Nils" in capsys.readouterr().out
    command_of(app)(["web-user", "remove", "Nils", *at], standalone_mode=False)
    assert Person(address, "nils").answer.status_code == 403
    assert acts(folder) == [
        ("ops", "web-user add", "Nils as viewer"), ("ops", "web-user remove", "Nils"),
    ]  # fmt: skip
