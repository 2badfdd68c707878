"""Notices of a federation of processes: void rounds and kills on both sides, each told once."""

import json
import os
import signal
from collections import Counter
from pathlib import Path

import pytest

from consilium.server.commands.steering import want
from consilium.server.coordinator.enrolment import submit
from consilium.server.coordinator.folder import CoordinatorFolder
from consilium.server.coordinator.register import Wanted
from consilium.shared.audit.entry import AuditEntry
from consilium.shared.audit.events import RoundClosed
from consilium.shared.audit.log import FILE_NAME
from consilium.shared.audit.own_log import open_audit
from consilium.shared.audit.reading import read_lines
from consilium.shared.notices.told import notices_status
from consilium.shared.study.definition import parse_study
from tests.deployment.federation import Federation, tiny_study, write_records
from tests.notice_servers import Inbox, mail_server, web_server
from tests.shared.notices.made_up import write_secret

MARK = "Kennmarke4711"
TABLE = """
[notices]
quiet_minutes = 0
missing_minutes = 0.25
look_every_s = 0.5
[notices.mail]
host = "127.0.0.1"
port = {mail}
tls = "none"
from = "Klinik Süd <consilium@klinik.example>"
to = ["{to}"]
[notices.webhook]
urls = ["http://127.0.0.1:{web}/{to}"]
secret = "webhook-secret"
"""


class Told:
    """What both servers got, by whom it was for."""

    def __init__(self, mail: Inbox, web: Inbox) -> None:
        self.mail, self.web = mail, web

    def posts(self, to: str) -> list[dict]:
        return [json.loads(body) for headers, body in self.web.taken if headers["path"] == f"/{to}"]

    def mails(self, to: str) -> list[str]:
        return [
            str(one["Message-ID"]).strip("<").partition("@")[0]
            for one in self.mail.mails()
            if one["To"] == to
        ]

    def rounds(self, to: str) -> list[int]:
        return sorted(
            number
            for post in self.posts(to)
            if post["kind"] == "round-void"
            for number in post["rounds"]
        )

    def has_finished(self, to: str) -> bool:
        return any((p["kind"], p["study"]) == ("study-finished", "tiny") for p in self.posts(to))

    def missing(self, to: str) -> list[str]:
        posts = [post for post in self.posts(to) if post["kind"] == "site-missing"]
        return [site for post in posts for site in post["sites"]]

    def kinds(self, to: str) -> Counter:
        return Counter(post["kind"] for post in self.posts(to))

    def refuse(self) -> None:
        """Nothing is taken from now on, so nobody is killed between taking and noting it."""
        self.mail.fail[:], self.web.fail[:] = [451] * 10_000, [503] * 10_000

    def settled(self, federation: Federation) -> bool:
        """Both sides have noted all that was taken, each of it once."""
        counted = [
            notices_status(folder) for folder in (federation.coordinator, federation.site("north"))
        ]
        sent = sum(side["sent"] for side in counted if side is not None)
        return sent == len(self.mail.taken) + len(self.web.taken)

    def accept(self) -> None:
        self.mail.fail.clear()
        self.web.fail.clear()


def void_rounds(federation: Federation) -> list[int]:
    events = [
        AuditEntry.from_line(line).event for line in read_lines(federation.coordinator / FILE_NAME)
    ]
    return sorted(e.round for e in events if isinstance(e, RoundClosed) and e.void is not None)


def given(federation: Federation) -> int:
    return sum(record["void"] is None for record in federation.records_of())


@pytest.mark.slow
def test_each_notice_arrives_once_through_kills_of_both_sides_and_void_rounds(
    tmp_path: Path,
) -> None:
    records = tmp_path / f"{MARK}-records"
    write_records(records, patients=30, seed=1)
    federation = Federation(tmp_path / "f", records)
    text = tiny_study(rounds=16, timeout=6.0).replace('"Tiny"', f'"{MARK}"')
    with mail_server() as mail, web_server() as web:
        told, everybody = Told(mail, web), ("operator@klinik.example", "it@klinik.example")
        operator, hospital = everybody
        try:
            federation.prepare(text)
            for folder, file, to in (
                (federation.coordinator, "coordinator.toml", operator),
                (federation.site("north"), "site.toml", hospital),
            ):
                write_secret(folder)
                with (folder / file).open("a") as opened:
                    opened.write(TABLE.format(mail=mail.port, web=web.port, to=to))
            federation.start("coordinator", "--patience", "600")
            federation.wait_for(federation.is_serving, "the coordinator to serve", 30)
            for site in ("north", "east", "south"):
                federation.start(site)
            federation.wait_for(lambda: "west" in told.missing(operator), "west to be missed", 60)
            opened = CoordinatorFolder.open(federation.coordinator)
            second = text.replace('"tiny"', '"second"')
            submit(
                opened.register(), opened.identity(), open_audit(opened), parse_study(second),
                second.encode(),
            )  # fmt: skip
            federation.wait_for(
                lambda: told.kinds(hospital)["study-offered"] == 1, "the offer to be told", 60
            )
            want(opened, "second", Wanted.STOP, by="test")
            federation.wait_for(lambda: federation.state_of("second") == "stopped", "its end", 60)
            federation.start("west")
            for killed in ("study", "coordinator", "north"):
                done = given(federation)  # not the record of the void round alone
                federation.wait_for(lambda done=done: given(federation) > done, "a round", 60)
                told.refuse()
                federation.wait_for(lambda: told.settled(federation), "what was taken", 30)
                if killed == "study":
                    os.kill(federation.children()["study"], signal.SIGKILL)
                else:
                    federation.kill(killed)
                    federation.start(killed)
                told.accept()
            federation.finish()
            void = void_rounds(federation)
            assert len(void) >= 2
            for to in everybody:
                federation.wait_for(lambda to=to: told.has_finished(to), "the end to be told", 30)
                federation.wait_for(
                    lambda to=to: len(told.mails(to)) == len(told.posts(to)), "the mails", 30
                )
                assert told.rounds(to) == void
                ids = [post["id"] for post in told.posts(to)]
                assert len(set(ids)) == len(ids)
                assert Counter(told.mails(to)) == Counter(ids)
            assert told.kinds(hospital)["study-offered"] == 1
            federation.wait_for(lambda: told.settled(federation), "what was taken", 30)
        finally:
            federation.close()
    sent = b"".join(body for _, body in (*mail.taken, *web.taken))
    assert MARK.encode() not in sent
    assert str(tmp_path).encode() not in sent
