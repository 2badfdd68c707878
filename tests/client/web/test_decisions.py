"""A study is decided on by named persons, as they read it, by one way for page and commands."""

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from consilium.client.cli import app
from consilium.client.commands import decisions
from consilium.client.hospital.folder import SiteFolder
from consilium.client.service.pinned_connection import approvals_of
from consilium.shared.audit.events import Acted, Approved, Refused, SizeDeclared
from consilium.shared.audit.recent import recent_entries
from consilium.shared.crypto.keys import IdentityKey
from consilium.shared.errors import PolicyError, SettingsError
from consilium.shared.service.command_line import command_of
from tests.client.web.conftest import Hospital
from tests.client.web.made_up import TEXT, identities
from tests.web_served import PASSWORD

TWO = "[studies]\napprovals_needed = 2\n"
Make = Callable[..., Hospital]


def run(site: SiteFolder, *words: str, password: str = PASSWORD) -> None:
    """A command as it is typed, its password on a file descriptor."""
    out, into = os.pipe()
    os.write(into, password.encode())
    os.close(into)
    fd = ["--password-fd", str(out)] if "--as" in words or "add" in words else []
    try:
        command_of(app)([*words, "--folder", str(site.path), *fd], standalone_mode=False)
    finally:
        os.close(out)


def events(site: SiteFolder, *kinds: type) -> list[object]:
    """The log's events of these kinds, oldest first."""
    found = [one.event for one in recent_entries(site.path / "audit.jsonl", 1000)]
    return [one for one in reversed(found) if isinstance(one, kinds)]


def form(one: Hospital, *, patients: int = 20, **changes: str) -> dict[str, str]:
    """What the form to approve sends."""
    offer = one.coordinator.offers[one.study.digest]
    approval = approvals_of(one.site).check(offer)
    return {
        "digest": one.study.digest.hex(),
        "sites": decisions.sites_digest(approval.roster),
        "patients": str(patients),
        "sure": "yes",
    } | changes


def approved(one: Hospital) -> bool:
    return approvals_of(one.site).stamp(one.study.digest) is not None


def test_one_person_approves_and_the_log_says_who(make: Make) -> None:
    one = make()
    answer = one.person("Anna").post(f"{one.path}/approve", **form(one))
    assert answer.status_code == 200
    assert "Study sepsis is approved, with a declared size of 20 patients." in answer.text
    assert approved(one)
    assert one.coordinator.declared == {one.study.digest: 20}
    declared, done = events(one.site, SizeDeclared, Approved)
    assert (declared.patients, done.by, done.approved) == (20, "Anna (steward)", True)
    again = one.person("Bert").post(f"{one.path}/approve", **form(one))
    assert "is approved already, by Anna (steward)" in again.text
    assert len(events(one.site, Approved)) == 1
    gone = one.person("Bert").post(f"{one.path}/withdraw", sure="yes")
    assert "withdrawn; nothing more leaves" in gone.text
    assert not approved(one)
    assert events(one.site, Approved)[-1].by == "Bert (steward)"


def test_two_persons_approve_the_same_and_one_of_them_does_not_count_twice(make: Make) -> None:
    one = make(TWO)
    anna = one.person("Anna")
    first = anna.post(f"{one.path}/approve", **form(one))
    assert "begins only once 1 more person(s) approve it" in first.text
    assert not approved(one)
    assert one.coordinator.declared == {}
    assert "It waits for another person." in first.text
    assert "has approved it already" in anna.post(f"{one.path}/approve", **form(one)).text
    other = one.person("Bert").post(f"{one.path}/approve", **form(one, patients=30))
    assert "approved this study with a size of 20 patients, not 30" in other.text
    assert not approved(one)
    one.person("Bert").post(f"{one.path}/approve", **form(one))
    assert approved(one)
    assert one.coordinator.declared == {one.study.digest: 20}
    assert events(one.site, Approved)[0].by == "Anna (steward), Bert (steward)"
    assert [e.by for e in events(one.site, Acted)] == ["Anna (steward)"]


def test_a_refusal_of_one_ends_what_another_had_approved(make: Make) -> None:
    one = make(TWO)
    one.person("Anna").post(f"{one.path}/approve", **form(one))
    told = one.person("Bert").post(f"{one.path}/refuse", reason="no <time>")
    assert "is refused; nothing was sent" in told.text
    assert "no &lt;time&gt;" in told.text
    assert "begins only once 1 more" in one.person("Bert").post(
        f"{one.path}/approve", **form(one)
    ).text  # fmt: skip
    assert not approved(one)


def test_a_study_that_changed_meanwhile_is_not_approved(make: Make) -> None:
    one = make()
    read = form(one)
    one.coordinator.offers.clear()
    one.coordinator.offer(TEXT.replace("rounds = 40", "rounds = 41"), identities(one.site))
    told = one.person("Anna").post(f"{one.path}/approve", **read)
    assert told.status_code == 409
    assert "was changed or ended meanwhile, and nothing was approved" in told.text
    assert events(one.site, Approved, SizeDeclared) == []


def test_another_key_for_a_site_than_the_one_read_is_not_approved(make: Make) -> None:
    one = make()
    read = form(one)
    one.coordinator.offer(TEXT, identities(one.site) | {"east": IdentityKey.generate()})
    told = one.person("Anna").post(f"{one.path}/approve", **read)
    assert "under another key, takes part than when you read it" in told.text
    assert not approved(one)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"sure": ""}, "was not ticked"),
        ({"patients": "-1"}, "is not a whole number"),
        ({"patients": "0"}, "is not a whole number"),
        ({"patients": "1e3"}, "is not a whole number"),
        ({"patients": "²"}, "is not a whole number"),
        ({"patients": ""}, "is not a whole number"),
        ({"digest": ""}, "its digest is"),
        ({"digest": "0" * 64}, "its digest is"),
        ({"sites": ""}, "takes part than when you read it"),
    ],
)
def test_a_form_that_was_not_filled_as_it_stands_approves_nothing(
    make: Make, changes: dict[str, str], told: str
) -> None:
    one = make()
    answer = one.person("Anna").post(f"{one.path}/approve", **form(one) | changes)
    assert answer.status_code == 409
    assert told in answer.text
    assert not approved(one)


def test_of_two_browsers_that_approve_at_once_one_is_told(make: Make) -> None:
    one = make()
    persons, answers = [one.person("Anna"), one.person("Bert")], []
    threads = [
        threading.Thread(
            target=lambda who=who: answers.append(who.post(f"{one.path}/approve", **form(one)))
        )
        for who in persons
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(one.status_code for one in answers) == [200, 409]
    assert len(events(one.site, Approved)) == 1


def test_only_a_steward_decides(make: Make) -> None:
    one = make()
    for name in ("Clara", "Tom"):
        who = one.person(name)
        for act in ("approve", "refuse", "withdraw"):
            assert who.post(f"{one.path}/{act}", **form(one)).status_code == 403
        assert "Only a steward decides" in who.get(one.path).text
    assert not approved(one)


def test_what_the_policy_does_not_allow_has_no_form_and_is_not_approved(make: Make) -> None:
    one = make("[privacy]\nstudy_epsilon = 1.0\n")
    anna = one.person("Anna")
    assert "above this site&#39;s bound of 1" in anna.get(one.path).text
    assert "is above this site&#39;s bound" in anna.post(f"{one.path}/approve", **form(one)).text
    assert not approved(one)


def test_the_commands_ask_for_a_person_where_the_policy_asks_for_two(
    make: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    one = make(TWO)
    with pytest.raises(SettingsError, match="asks for 2 persons; say who you are with --as"):
        run(one.site, "approve", "sepsis", "--yes")
    with pytest.raises(SettingsError, match="name or password is wrong"):
        run(one.site, "approve", "sepsis", "--yes", "--as", "anna", password="x")
    with pytest.raises(SettingsError, match="is it, and only a steward decides"):
        run(one.site, "approve", "sepsis", "--yes", "--as", "Tom")
    run(one.site, "approve", "sepsis", "--yes", "--patients", "20", "--as", "anna")
    assert "waits for 1 more person(s)" in capsys.readouterr().out
    one.person("Bert").post(f"{one.path}/approve", **form(one))
    assert approved(one)
    run(one.site, "withdraw", "sepsis", "--as", "Bert")
    run(one.site, "refuse", "sepsis", "--as", "Bert", "--reason", "not now")
    assert [type(e).__name__ for e in events(one.site, Acted, Approved)] == [
        "Acted", "Approved", "Approved", "Acted",
    ]  # fmt: skip


@pytest.mark.slow
def test_persons_are_added_and_removed_by_command_under_the_accounts_name(
    make: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    one = make()
    run(one.site, "web-user", "add", "Dora", "--role", "steward")
    run(one.site, "web-user", "list")
    assert "steward    Dora" in capsys.readouterr().out
    assert one.person("dora").answer.status_code == 303
    run(one.site, "web-user", "remove", "dora")
    assert one.person("dora").answer.status_code == 403
    said = [(e.act, e.subject) for e in events(one.site, Acted)]
    assert said == [("web-user add", "Dora as steward"), ("web-user remove", "dora")]


def test_the_order_of_deciding_is_kept(make: Make, tmp_path: Path) -> None:
    one = make()
    with pytest.raises(SettingsError, match="none approved under this name"):
        decisions.withdraw(one.site, "sepsis", by="x")
    with pytest.raises(SettingsError, match="at most 300 characters on one line"):
        decisions.refuse(one.site, "sepsis", by="x", reason="a\nb")
    proposal = decisions.propose(one.site, "sepsis", patients=20)
    assert decisions.approve(one.site, proposal, by="x").missing == 0
    with pytest.raises(SettingsError, match="withdraw the approval instead"):
        decisions.refuse(one.site, "sepsis", by="x")
    (note,) = (one.site.path / "approvals").glob("*.decision")
    note.write_text("{}")
    with pytest.raises(SettingsError, match="is damaged; remove it"):
        decisions.approve(one.site, proposal, by="y")
    note.unlink()  # approved before notes were kept: approving again writes one
    assert decisions.approve(one.site, proposal, by="y").missing == 0


def test_a_roster_that_is_refused_is_noted_in_the_log(make: Make) -> None:
    one = make()
    (one.site.path / "policy.toml").write_text("[roster]\nvouched_at_least = 3\n")
    with pytest.raises(PolicyError, match="are vouched for"):
        decisions.propose(one.site, "sepsis")
    assert [event.asked for event in events(one.site, Refused)] == ["approve"]
    assert "below this site&#39;s bound of 3" in one.person("Anna").get(one.path).text
    assert len(events(one.site, Refused)) == 1  # who only looks is not noted
