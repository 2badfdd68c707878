"""The site's Flower edge: bytes in, bytes out; all logic is in ``Session``."""

from collections.abc import Callable
from typing import Protocol

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from consilium.shared.secure_sum.messages import Action
from consilium.shared.wire.flower_body import from_content, to_content


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
        return Message(to_content(session.site.encode()), reply_to=message)

    for action in Action:
        app.query(action.value)(_answer(session, action))
    return app


def _answer(session: Answers, action: Action) -> Callable[[Message, Context], Message]:
    def answer(message: Message, _: Context) -> Message:
        body = session.handle(action, from_content(message.content))
        return Message(to_content(body), reply_to=message)

    return answer
