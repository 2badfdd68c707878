"""The courier: each notice once, whatever dies; a dead server holds up nobody else."""

import socket
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest

from consilium.shared.errors import SettingsError
from consilium.shared.notices.courier import Addresses, Courier, Look, sending
from consilium.shared.notices.outbox import Outbox
from consilium.shared.notices.told import notices_status
from tests.notice_servers import mail_server, web_server
from tests.shared.notices.made_up import (
    COORDINATOR,
    mail,
    settings,
    void,
    webhook,
    write_secret,
)


@contextmanager
def silent_server():
    """A port that takes connections and never says anything."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


class Found:
    """A lookout that finds the same each time."""

    def __init__(self, *events):
        self.events, self.looks = events, 0

    def look(self, marks, now):
        self.looks += 1
        return Look(events=self.events, marks={"looked": "yes"})


def courier(folder, found, clock=time.time, **more):
    chosen = settings(**{"quiet_minutes": 0.0} | more)
    outbox = Outbox(folder / "notices.sqlite", COORDINATOR)
    return Courier(chosen, outbox, found, Addresses(chosen, folder), clock=clock)


def test_a_dead_server_holds_up_neither_the_other_nor_whoever_closes(tmp_path):
    write_secret(tmp_path)
    with web_server() as inbox, silent_server() as port:
        found = courier(
            tmp_path,
            Found(void(1), void(2)),
            mail=mail(port),
            webhook=webhook(f"http://127.0.0.1:{inbox.port}/"),
        )
        found.start()
        inbox.wait(1)
        began = time.monotonic()
        found.close(within_s=0.2)
        assert time.monotonic() - began < 10
    status = notices_status(tmp_path)
    assert (status["sent"], status["waiting"]) == (1, 1)


def test_only_the_kinds_that_are_wanted_are_told(tmp_path):
    made = courier(tmp_path, Found(void(1)), mail=mail(1), kinds=["disk-nearly-full"])
    made.look()
    assert notices_status(tmp_path)["waiting"] == 0


def test_a_failure_is_tried_again_later_and_counted(tmp_path):
    now = [1000.0]
    with mail_server() as inbox:
        inbox.fail = [451]
        made = courier(tmp_path, Found(void(1)), clock=lambda: now[0], mail=mail(inbox.port))
        made.look()
        line = made._addresses.lines[0]
        assert made.send_next(line)
        assert not made.send_next(line)
        assert notices_status(tmp_path) == {
            "sent": 0, "waiting": 1, "given_up": 0, "failed_attempts": 1, "lost": 0,
            "last_failure": {
                "at": "1970-01-01T00:16:40+00:00",
                "to": "mail to it@klinik.example",
                "why": "the mail server refused: 451 not now, come back\\x1b[2J",
            },
        }  # fmt: skip
        now[0] += 1.0
        assert made.send_next(line)
        made.look()
        assert not made.send_next(line)
    assert len(inbox.taken) == 1
    assert notices_status(tmp_path)["sent"] == 1


def test_each_recipient_gets_it_once_though_another_one_is_refused(tmp_path):
    now = [1000.0]
    with mail_server() as inbox:
        inbox.fail = [550]
        to = ["a@klinik.example", "b@klinik.example"]
        made = courier(tmp_path, Found(void(1)), clock=lambda: now[0], mail=mail(inbox.port, to=to))
        made.look()
        for _ in range(3):
            while made.send_next(made._addresses.lines[0]):
                pass
            now[0] += 100
    assert sorted(one["To"] for one in inbox.mails()) == to


def test_a_taken_notice_is_not_sent_again_while_the_disk_is_full(tmp_path, monkeypatch):
    now = [1000.0]
    with mail_server() as inbox:
        made = courier(tmp_path, Found(void(1)), clock=lambda: now[0], mail=mail(inbox.port))
        made.look()
        line = made._addresses.lines[0]

        def full(*_, **__):
            raise SettingsError("no space")

        with monkeypatch.context() as patch:
            patch.setattr(made._outbox, "delivered", full)
            with pytest.raises(SettingsError):
                made.send_next(line)
        now[0] += 1000
        assert made.send_next(line)
    assert len(inbox.taken) == 1
    assert notices_status(tmp_path)["sent"] == 1


def test_a_defect_in_looking_ends_neither_notices_nor_process(tmp_path, caplog):
    class Broken(Found):
        def look(self, marks, now):
            if self.looks == 0:
                self.looks = 1
                raise ZeroDivisionError("a patient's value")
            return super().look(marks, now)

    with mail_server() as inbox:
        made = courier(tmp_path, Broken(void(1)), mail=mail(inbox.port), look_every_s=0.2)
        made.start()
        inbox.wait(1)
        made.close()
    assert "an unforeseen error" in caplog.text


def test_what_cannot_be_opened_is_logged_and_the_work_goes_on(caplog):
    def broken():
        raise SettingsError("x: is no file of certificates")

    done = []
    with sending(broken):
        done.append(1)
    with sending(lambda: None):
        done.append(2)
    assert done == [1, 2]
    assert "no notices are sent: x: is no file of certificates" in caplog.text


SENDS = """
import sys, time
from pathlib import Path
from tests.shared.notices.test_courier import Found, courier
from tests.shared.notices.made_up import mail, void
made = courier(Path(sys.argv[1]), Found(void(1)), mail=mail(int(sys.argv[2])), look_every_s=0.2)
made.start()
time.sleep(60)
"""


def test_killed_between_taking_and_noting_it_comes_again_under_the_same_identifier(tmp_path):
    with mail_server() as inbox:
        inbox.break_after = 1  # the server takes it, and nobody is told
        process = subprocess.Popen([sys.executable, "-c", SENDS, tmp_path, str(inbox.port)])
        inbox.wait(1)
        process.kill()
        process.wait()
        now = time.time() + 7200
        made = courier(tmp_path, Found(void(1)), clock=lambda: now, mail=mail(inbox.port))
        made.look()
        made.send_next(made._addresses.lines[0])
        made.look()
        assert not made.send_next(made._addresses.lines[0])
    first, second = inbox.mails()
    assert first["Message-ID"] == second["Message-ID"]
