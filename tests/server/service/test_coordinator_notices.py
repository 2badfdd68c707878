"""What the operator is told of, from a real register, audit log, disk and certificate."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from consilium.server.coordinator.certificates import issue_server_certificate
from consilium.server.coordinator.enrolment import revoke, submit
from consilium.server.coordinator.folder import CoordinatorFolder
from consilium.server.coordinator.register import State
from consilium.server.service.notices import CoordinatorLookout, coordinator_courier, sender_of
from consilium.server.service.overview import overview
from consilium.shared.audit.events import RoundClosed
from consilium.shared.audit.own_log import open_audit
from consilium.shared.errors import SettingsError
from consilium.shared.notices.kinds import subject_and_text
from consilium.shared.notices.outbox import Outbox
from consilium.shared.study.definition import parse_study
from tests.deployment.federation import tiny_study
from tests.server.web.made_up import make_coordinator
from tests.shared.notices.made_up import mail, settings

MARK = "Kennmarke4711"
DAY_S = 86_400.0
FREE = 8 << 30


@pytest.fixture
def made(tmp_path):
    text = tiny_study().replace('"Tiny"', f'"{MARK}"')
    return make_coordinator(tmp_path / "c", text)


class Watching:
    """A lookout and its outbox, one look after the other."""

    def __init__(self, folder, **more):
        self.folder, self.free, self.now = folder, FREE, datetime.now(UTC).timestamp()
        self.settings = settings(mail=mail(25), **more)
        self.outbox = Outbox(folder.path / "notices.sqlite", sender_of(folder))
        self.begin()

    def begin(self):
        """As after a restart of the process."""
        self.lookout = CoordinatorLookout(
            self.folder, self.settings, free=lambda _: self.free, clock=lambda: self.now
        )

    def look(self):
        """Look; return the subjects of what is new, in order."""
        found = self.lookout.look(self.outbox.marks(), self.now)
        self.outbox.note(found.events, found.marks)
        self.outbox.form(["a"], quiet_s=0, now=self.now)
        told = []
        while (one := self.outbox.begin(["a"], first_pause_s=1, now=self.now)) is not None:
            self.outbox.delivered(one, said="", now=self.now)
            assert MARK not in json.dumps(vars(one.notice))
            told.append(one.notice.subject.removeprefix("Consilium, coordinator: "))
        return told


def study_of(folder):
    (study,) = folder.register().studies()
    return study


def close_round(folder, number, void=None):
    event = RoundClosed(
        study_digest=study_of(folder).digest, study_hash=b"r" * 32, round=number,
        purpose="training", survivors=(), model_digest=bytes(32), void=void,
    )  # fmt: skip
    open_audit(folder).append(event)


def test_void_rounds_and_the_end_are_told_once_across_restarts_and_sealed_logs(made):
    close_round(made, 3, void="before anybody was to be told")
    watching = Watching(made)
    assert watching.look() == []
    close_round(made, 4, void=f"site north: {MARK} /srv/{MARK}")
    close_round(made, 5)
    open_audit(made).seal(by="test")
    close_round(made, 6, void=MARK)
    assert watching.look() == ["study tiny: 2 rounds are void"]
    close_round(made, 7, void=MARK)
    watching.begin()
    assert watching.look() == ["study tiny: round 7 is void"]
    made.register().note(study_of(made).digest, State.FINISHED, MARK)
    assert watching.look() == ["study tiny has finished"]
    watching.begin()
    assert watching.look() == []


@pytest.mark.parametrize("restarted", [True, False])
def test_a_look_that_could_not_be_noted_is_taken_again(made, restarted):
    watching = Watching(made)
    watching.look()
    close_round(made, 4, void="x")
    watching.lookout.look(watching.outbox.marks(), watching.now)  # killed, or the disk is full
    if restarted:
        watching.begin()
    assert watching.look() == ["study tiny: round 4 is void"]


def test_a_study_that_is_stopped_without_a_process_is_told(made):
    watching = Watching(made)
    watching.look()
    made.register().note(study_of(made).digest, State.STOPPED)
    assert watching.look() == ["study tiny was stopped"]


def test_a_site_is_missing_once_for_each_time_it_is_away(made):
    watching = Watching(made)
    watching.now += 29 * 60
    for site in ("east", "south", "west"):
        made.register().saw(site, "0.1.0", budget_left=None, now=watching.now)
    watching.now += 120
    assert watching.look() == ["site north is missing"]
    watching.now += 600
    watching.begin()  # just begun: nobody could come before
    watching.now += 60
    assert watching.look() == []
    made.register().saw("north", "0.1.0", budget_left=None, now=watching.now)
    watching.now += 1860
    for site in ("east", "south", "west"):
        made.register().saw(site, "0.1.0", budget_left=None, now=watching.now)
    assert watching.look() == ["site north is missing"]
    revoke(made.register(), open_audit(made), "north", "gone")
    watching.now += 1860
    assert "site north is missing" not in watching.look()


def test_nobody_is_missing_who_has_no_open_study(made):
    watching = Watching(made)
    made.register().note(study_of(made).digest, State.FINISHED)
    watching.look()
    watching.now += DAY_S
    assert watching.look() == []


def test_a_study_without_all_approvals_is_told_at_most_daily(made):
    watching = Watching(made, missing_minutes=10_080.0)
    told = []
    for _ in range(3 * 4 + 1):
        told += watching.look()
        watching.now += DAY_S / 4
    assert told == ["study tiny waits for approvals"] * 3
    study = study_of(made)
    found = watching.lookout.look(watching.outbox.marks(), watching.now)
    _, text = subject_and_text(sender_of(made), found.events)
    assert "Not approved yet by: east, north, south, west.\nThis is repeated once a day" in text
    assert study.digest.hex()[:16] in text
    made.register().note(study.digest, State.STOPPED)
    watching.now += DAY_S
    assert watching.look() == ["study tiny was stopped"]


def test_a_disk_is_nearly_full_once_until_there_was_room(made):
    watching = Watching(made)
    told = []
    for mib in (2000, 1000, 500, 1060, 1000, 2000, 900):
        watching.free = mib << 20
        watching.now += 60
        told.append(watching.look())
    full = ["the disk is nearly full"]
    assert told == [[], full, [], [], [], [], full]


def test_a_certificate_that_ends_soon_is_told_once_and_the_next_one_again(made):
    watching = Watching(made)
    for days in (29, 28):
        issue_server_certificate(made.certificates, ("localhost",), days=days)
        ends = made.certificates.expires()
        assert watching.look() == [f"the coordinator's certificate ends on {ends:%Y-%m-%d}"]
        assert watching.look() == []
    issue_server_certificate(made.certificates, ("localhost",), days=90)
    assert watching.look() == []
    watching.now = (made.certificates.authority_expires() - timedelta(days=10)).timestamp()
    assert any("certificate authority ends on" in told for told in watching.look())


def test_settings_are_read_from_coordinator_toml_and_outlive_a_new_name(made):
    assert coordinator_courier(made) is None
    file = made.path / "coordinator.toml"
    with file.open("a") as opened:
        opened.write(
            '\n[notices.mail]\nhost = "127.0.0.1"\ntls = "none"\nfrom = "a@b.example"\n'
            'to = ["c@d.example"]\n'
        )
    CoordinatorFolder.open(made.path).rename("other.example.org")
    opened = CoordinatorFolder.open(made.path)
    assert opened.settings.host == "other.example.org"
    assert opened.notices().mail.host == "127.0.0.1"
    assert coordinator_courier(opened) is not None
    file.write_text(file.read_text() + "ti = 1\n")
    with pytest.raises(SettingsError, match=r"\[mail\] ti is not a known key; did you mean"):
        opened.notices()


def test_watch_counts_what_was_sent_and_what_failed(made):
    assert overview(made, made.register())["notices"] is None
    watching = Watching(made)
    watching.look()
    close_round(made, 4, void="x")
    watching.look()
    assert overview(made, made.register())["notices"]["sent"] == 1


def test_two_studies_of_one_name_are_told_apart(made):
    text = tiny_study(rounds=9)
    study = parse_study(text)
    submit(made.register(), made.identity(), open_audit(made), study, text.encode())
    watching = Watching(made)
    watching.look()
    for one in made.register().studies():
        made.register().note(one.digest, State.FINISHED)
    assert watching.look() == ["study tiny has finished"] * 2
