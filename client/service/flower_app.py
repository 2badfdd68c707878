"""The site's Flower edge: bytes in, bytes out; all logic is in ``Session``."""

from collections.abc import Callable
from typing import Protocol

from flwr.app import Array, ArrayRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from consilium.shared.secure_sum.messages import Action

BODY = "consilium"


class Answers(Protocol):
    """Whoever answers for one site: a session of one study, or the desk of many."""

    @property
    def site(self) -> str:
        """The site's name."""

    def handle(self, action: Action, body: bytes) -> bytes:
        """Answer one message; a refusal is an answer too."""


def make_client_app(session: Answers) -> ClientApp:
    """Return a ClientApp that answers the protocol's actions for one site, and nothing else."""
    app = ClientApp()

    @app.query("name")
    def name(message: Message, _: Context) -> Message:
        return Message(_pack(session.site.encode()), reply_to=message)

    for action in Action:
        app.query(action.value)(_answer(session, action))
    return app


def _answer(session: Answers, action: Action) -> Callable[[Message, Context], Message]:
    def answer(message: Message, _: Context) -> Message:
        return Message(_pack(session.handle(action, _unpack(message.content))), reply_to=message)

    return answer


def _pack(body: bytes) -> RecordDict:
    array = Array(dtype="uint8", shape=(len(body),), stype=BODY, data=body)
    return RecordDict({BODY: ArrayRecord({BODY: array})})


def _unpack(content: RecordDict) -> bytes:
    """Return the body, or nothing (which no parser accepts) when there is more than a body."""
    if list(content) != [BODY] or list(content.array_records) != [BODY]:
        return b""
    record = content.array_records[BODY]
    return record[BODY].data if list(record) == [BODY] and record[BODY].stype == BODY else b""
