"""An event stands in one notice, a notice is one delivery an address, whatever happens between."""

import sqlite3
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consilium.shared.errors import SettingsError
from consilium.shared.notices import outbox as module
from consilium.shared.notices.kinds import NoticeEvent
from consilium.shared.notices.outbox import DAY_S, LONGEST_PAUSE_S, MOST_ATTEMPTS, Outbox
from consilium.shared.notices.told import notices_lines, notices_status
from tests.shared.notices.made_up import COORDINATOR, SITE, STUDY, offered, void

T0 = 1_764_000_000.0


@pytest.fixture
def outbox(tmp_path):
    return Outbox(tmp_path / "notices.sqlite", COORDINATOR)


def drain(outbox, addresses=("a",), now=T0):
    """Deliver all that is due; return the notices."""
    found = []
    while (delivery := outbox.begin(addresses, first_pause_s=60, now=now)) is not None:
        outbox.delivered(delivery, said="250", now=now)
        found.append(delivery.notice)
    return found


def test_an_event_that_is_seen_again_is_not_told_again(outbox, tmp_path):
    for _ in range(3):
        outbox.note([void(12), offered()], {"seen": "5"})
        outbox.form(["a"], quiet_s=0, now=T0)
    again = Outbox(tmp_path / "notices.sqlite", COORDINATOR)
    assert again.note([void(12)], {}) == 0
    assert again.marks() == {"seen": "5"}
    assert sorted(notice.kind for notice in drain(again)) == ["round-void", "study-offered"]


def test_the_file_is_for_this_account_alone(outbox, tmp_path):
    assert (tmp_path / "notices.sqlite").stat().st_mode & 0o777 == 0o600


def test_events_within_the_quiet_time_are_told_together_once_it_is_over(outbox):
    outbox.note([void(1)], {})
    outbox.form(["a"], quiet_s=3600, now=T0)
    outbox.note([void(2), void(4)], {})
    assert outbox.form(["a"], quiet_s=3600, now=T0 + 3599) == 0
    assert outbox.form(["a"], quiet_s=3600, now=T0 + 3600) == 1
    first, second = drain(outbox, now=T0 + 3600)
    assert first.subject == "Consilium, coordinator: study tiny: round 1 is void"
    assert second.subject == "Consilium, coordinator: study tiny: 2 rounds are void"
    assert second.fields["rounds"] == [2, 4]
    assert "Rounds 2, 4." in second.text


def test_quiet_time_is_of_one_study_and_one_kind(outbox):
    other = NoticeEvent(kind="round-void", once="", round=1, study="b", study_digest="f" * 16)
    outbox.note([void(1), other, offered()], {})
    assert outbox.form(["a"], quiet_s=3600, now=T0) == 3


def test_a_reminder_comes_no_sooner_than_a_day_after_the_last(outbox):
    for hour in range(0, 97, 4):
        days = str(hour // 24)
        outbox.note([NoticeEvent(kind="approval-waiting", once=days, **STUDY)], {})
        outbox.form(["a"], quiet_s=0, now=T0 + 3600 * hour + (1800 if hour == 0 else 0))
    sent = [notice.formed for notice in drain(outbox, now=T0 + 97 * 3600)]
    assert len(sent) == 4
    assert all(later - earlier >= DAY_S for earlier, later in pairwise(sent))


def test_two_senders_and_two_events_have_different_identifiers():
    ids = {void(1).id(who.identity) for who in (SITE, COORDINATOR)}
    ids |= {void(2).id(SITE.identity), void(1, "again").id(SITE.identity)}
    assert len(ids) == 4
    assert all(len(one) == 32 for one in ids)


def test_pauses_grow_to_an_hour_and_attempts_end(outbox, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MOST_ATTEMPTS", 9)
    outbox.note([void(1)], {})
    outbox.form(["a"], quiet_s=0, now=T0)
    now, pauses, over = T0, [], False
    while not over:
        delivery = outbox.begin(["a"], first_pause_s=60, now=now)
        over = outbox.failed(delivery, said="no", now=now)
        with sqlite3.connect(tmp_path / "notices.sqlite") as connection:
            (due,) = connection.execute("SELECT due FROM deliveries").fetchone()
        pauses.append(due - now)
        now = due
    assert pauses == [60, 120, 240, 480, 960, 1920, *[LONGEST_PAUSE_S] * 3]
    assert outbox.begin(["a"], first_pause_s=60, now=now + 10 * DAY_S) is None
    found = outbox.summary()
    assert (found.sent, found.waiting, found.given_up, found.failed_attempts) == (0, 0, 1, 9)


def test_attempts_go_on_for_about_three_days():
    pauses = [min(60 * 2**attempt, LONGEST_PAUSE_S) for attempt in range(MOST_ATTEMPTS)]
    assert sum(pauses) == pytest.approx(3 * DAY_S, rel=0.05)


def test_an_attempt_is_on_disk_before_it_begins(outbox, tmp_path):
    outbox.note([void(1)], {})
    outbox.form(["a"], quiet_s=0, now=T0)
    assert outbox.begin(["a"], first_pause_s=60, now=T0) is not None
    later = Outbox(tmp_path / "notices.sqlite", COORDINATOR)  # after a crash amidst it
    assert later.begin(["a"], first_pause_s=60, now=T0 + 59) is None
    again = later.begin(["a"], first_pause_s=60, now=T0 + 60)
    assert again is not None
    assert again.attempts == 2


def test_a_clock_that_was_put_back_holds_nothing_up(outbox):
    outbox.note([void(1)], {})
    outbox.form(["a"], quiet_s=3600, now=T0)
    outbox.note([void(2)], {})
    back = T0 - 400 * DAY_S
    assert outbox.form(["a"], quiet_s=3600, now=back) == 1
    assert len(drain(outbox, now=back)) == 2


def test_addresses_that_the_settings_do_not_name_any_more_are_given_up(outbox, tmp_path):
    outbox.note([void(1)], {})
    outbox.form(["a", "b"], quiet_s=0, now=T0)
    outbox.give_up_others(["b"], now=T0)
    assert outbox.begin(["a"], first_pause_s=60, now=T0) is None
    assert len(drain(outbox, ["b"])) == 1
    assert notices_lines(notices_status(tmp_path)) == [
        "1 sent, 0 waiting, 1 given up, 0 attempts failed",
        "2025-11-24T16:00:00+00:00 a: the settings do not name it any more",
    ]


def test_a_flood_of_one_kind_is_bounded_and_leaves_room_for_the_others(outbox, monkeypatch):
    monkeypatch.setattr(module, "MOST_PENDING", 60)
    flood = [
        NoticeEvent(kind="study-offered", once="", study=f"s{n}", study_digest=f"{n:016x}")
        for n in range(80)
    ]
    outbox.note([*flood, NoticeEvent(kind="disk-nearly-full", once="1")], {})
    assert outbox.form(["a"], quiet_s=0, now=T0) == module.MOST_A_DAY + 1
    assert outbox.summary().lost == 20
    assert outbox.form(["a"], quiet_s=0, now=T0 + DAY_S) == 10


def test_a_file_of_another_version_or_none_of_ours_is_one_sentence(tmp_path):
    file = tmp_path / "notices.sqlite"
    with sqlite3.connect(file) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(SettingsError, match="has version 99, this build reads 1"):
        Outbox(file, COORDINATOR)
    file.write_bytes(b"nothing of the kind" * 100)
    assert "cannot be used" in notices_status(tmp_path)["error"]
    assert notices_lines(notices_status(tmp_path))[0].startswith("not known: ")
    assert notices_lines(notices_status(tmp_path / "nowhere")) == []


KILLED = """
import os, sys
from pathlib import Path
from consilium.shared.notices.outbox import Outbox
from tests.shared.notices.made_up import COORDINATOR, void
outbox = Outbox(Path(sys.argv[1]), COORDINATOR)
outbox.note([void(n) for n in range(3)], {"audit-entry": "7"})
outbox.form(["a"], quiet_s=0, now=1.0)
outbox.begin(["a"], first_pause_s=60, now=1.0)
os.kill(os.getpid(), 9)
"""


def test_a_killed_process_leaves_each_event_in_one_notice(tmp_path):
    for _ in range(2):
        subprocess.run([sys.executable, "-c", KILLED, tmp_path / "o.sqlite"], check=False)
    outbox = Outbox(tmp_path / "o.sqlite", COORDINATOR)
    assert [n.fields["rounds"] for n in drain(outbox, now=1e6)] == [[0, 1, 2]]


@settings(max_examples=15)
@given(
    st.lists(
        st.tuples(st.sampled_from(["note", "form", "try", "fail"]), st.integers(0, 5)), max_size=25
    )
)
def test_every_event_is_told_exactly_once_in_any_order_of_looks_and_failures(steps):
    with TemporaryDirectory() as folder:
        outbox = Outbox(Path(folder) / "o.sqlite", COORDINATOR)
        noted, told, now = set(), [], T0
        for step, number in steps:
            now += 60 * number
            if step == "note":
                outbox.note([void(number)], {})
                noted.add(number)
            elif step == "form":
                outbox.form(["a"], quiet_s=120, now=now)
            elif (one := outbox.begin(["a"], first_pause_s=60, now=now)) is not None:
                if step == "try":
                    outbox.delivered(one, said="250", now=now)
                    told += one.notice.fields["rounds"]
                else:
                    outbox.failed(one, said="no", now=now)
        outbox.form(["a"], quiet_s=0, now=now)
        for notice in drain(outbox, now=now + DAY_S):
            told += notice.fields["rounds"]
        assert sorted(told) == sorted(noted)
