"""Settings, events and senders that are nobody's."""

from pathlib import Path
from typing import Any

from consilium.shared.notices.kinds import NoticeEvent, Sender
from consilium.shared.notices.outbox import Notice, notice_of
from consilium.shared.notices.settings import NoticeSettings

SITE = Sender(side="site", name="north", identity=b"n" * 32)
COORDINATOR = Sender(side="coordinator", name="", identity=b"c" * 32)
SECRET = "a-secret-of-the-tests"
DIGEST = "0123456789abcdef"
STUDY: dict[str, Any] = {"study": "tiny", "study_digest": DIGEST}


def void(number: int, once: str = "") -> NoticeEvent:
    return NoticeEvent(kind="round-void", once=once, round=number, **STUDY)


def offered(once: str = "") -> NoticeEvent:
    return NoticeEvent(kind="study-offered", once=once, **STUDY)


def mail(port: int, **more: Any) -> dict[str, Any]:
    """``[notices.mail]`` for a server on this port, in the clear unless it is said otherwise."""
    return {
        "host": "127.0.0.1",
        "port": port,
        "tls": "none",
        "from": "Klinik Süd <consilium@klinik.example>",
        "to": ["it@klinik.example"],
    } | more


def webhook(*urls: str) -> dict[str, Any]:
    return {"urls": list(urls), "secret": "webhook-secret"}


def write_secret(folder: Path, name: str = "webhook-secret", text: str = SECRET) -> None:
    (folder / name).write_text(f"{text}\n")
    (folder / name).chmod(0o600)


def settings(**tables: Any) -> NoticeSettings:
    return NoticeSettings.model_validate({"look_every_s": 1.0} | tables)


def one_notice(*events: NoticeEvent, sender: Sender = COORDINATOR) -> Notice:
    """The notice that these events make."""
    return notice_of(sender, events, id=events[0].id(sender.identity), now=1000.0)
