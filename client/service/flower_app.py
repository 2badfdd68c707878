"""The site's Flower ClientApp: passes each message's bytes to an answerer, returns its bytes."""

from collections.abc import Callable

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from consilium.client.round.answer import Answers
from consilium.shared.secure_sum.messages import Action
from consilium.shared.wire.flower_body import from_content, to_content


def make_client_app(answers: Answers) -> ClientApp:
    """Return a ClientApp that answers only the protocol's actions, for one site."""
    app = ClientApp()

    @app.query("name")
    def name(message: Message, _: Context) -> Message:
        return Message(to_content(answers.site.encode()), reply_to=message)

    for action in Action:
        app.query(action.value)(_answer(answers, action))
    return app


def _answer(answers: Answers, action: Action) -> Callable[[Message, Context], Message]:
    def answer(message: Message, _: Context) -> Message:
        answered = answers.handle(action, from_content(message.content))
        return Message(to_content(answered.body), reply_to=message)

    return answer
