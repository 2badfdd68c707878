"""The site's Flower edge: bytes in, bytes out; who answers is passed in."""

from collections.abc import Callable

from flwr.app import Array, ArrayRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from consilium.client.round.answer import Answers
from consilium.shared.secure_sum.messages import Action

BODY = "consilium"


def make_client_app(answers: Answers) -> ClientApp:
    """Return a ClientApp that answers the protocol's actions for one site, and nothing else."""
    app = ClientApp()

    @app.query("name")
    def name(message: Message, _: Context) -> Message:
        return Message(_pack(answers.site.encode()), reply_to=message)

    for action in Action:
        app.query(action.value)(_answer(answers, action))
    return app


def _answer(answers: Answers, action: Action) -> Callable[[Message, Context], Message]:
    def answer(message: Message, _: Context) -> Message:
        answered = answers.handle(action, _unpack(message.content))
        return Message(_pack(answered.body), reply_to=message)

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
