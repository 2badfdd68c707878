"""The local grid carries bytes as Flower does, in parallel, with the faults it is told to have."""

import threading
import time
from collections.abc import Callable

import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from consilium.server.flower.app import make_server_app
from consilium.server.flower.sites import FlowerSites
from consilium.server.secure_sum.sites import Sites
from consilium.shared.secure_sum.messages import Action
from consilium.shared.wire.flower_body import BODY, to_content
from consilium.simulations.federation.faults import Fault, FaultKind
from consilium.simulations.federation.local_grid import LocalGrid, run_server_app
from tests.simulations.passing_time import PATIENCE_S, let_time_pass

NAMES = ("a", "b", "c")


def site(name: str, answer: Callable[[bytes], RecordDict]) -> Callable[[], ClientApp]:
    def start() -> ClientApp:
        app = ClientApp()

        @app.query("name")
        def tell(message: Message, _: Context) -> Message:
            return Message(to_content(name.encode()), reply_to=message)

        @app.query("update")
        def update(message: Message, _: Context) -> Message:
            body = message.content.array_records[BODY][BODY].data
            return Message(answer(body), reply_to=message)

        return app

    return start


def echo(body: bytes) -> RecordDict:
    return to_content(body[::-1])


def ask(
    answer: Callable[[bytes], RecordDict] = echo,
    *,
    workers: int = 3,
    faults: tuple[Fault, ...] = (),
    timeout_s: float = PATIENCE_S,
    times: int = 1,
) -> list[dict[str, bytes]]:
    answers: list[dict[str, bytes]] = []

    def coordinate(sites: Sites) -> None:
        assert sites.names() == NAMES
        for _ in range(times):
            bodies = {name: name.encode() + b"\x00\xff" for name in sites.names()}
            answers.append(dict(sites.ask(Action.UPDATE, bodies, timeout_s=timeout_s)))

    apps = {name: site(name, answer) for name in NAMES}
    with LocalGrid(apps, workers=workers, faults=faults) as grid:
        run_server_app(make_server_app(coordinate, NAMES, timeout_s=PATIENCE_S), grid)
    return answers


def test_every_site_gets_its_own_body_and_answers_it() -> None:
    assert ask() == [{name: b"\xff\x00" + name.encode() for name in NAMES}]


def test_a_site_that_raises_is_missing_and_the_others_are_not() -> None:
    def answer(body: bytes) -> RecordDict:
        if body.startswith(b"b"):
            raise ValueError("no")
        return echo(body)

    assert set(ask(answer)[0]) == {"a", "c"}


@pytest.mark.parametrize(
    "reply",
    [
        RecordDict(),
        RecordDict({"other": ConfigRecord({"x": 1})}),
        RecordDict({BODY: ConfigRecord({"x": 1})}),
        RecordDict({BODY: ArrayRecord({"x": Array("uint8", (1,), BODY, b"1")})}),
        RecordDict({BODY: ArrayRecord({BODY: Array("uint8", (1,), "numpy.ndarray", b"1")})}),
        RecordDict({**to_content(b"x"), "more": ConfigRecord({"x": 1})}),
    ],
)
def test_a_reply_that_is_more_or_less_than_a_body_counts_as_empty(reply: RecordDict) -> None:
    assert ask(lambda _: reply) == [dict.fromkeys(NAMES, b"")]


@pytest.mark.parametrize("kind", [FaultKind.LOSE_REQUEST, FaultKind.LOSE_REPLY, FaultKind.CRASH])
def test_a_lost_message_or_crashed_site_is_missing_once(
    kind: FaultKind, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault = Fault(site="b", message_type="query.update", occurrence=1, kind=kind)
    let_time_pass(monkeypatch)
    answers = ask(faults=(fault,), times=3)
    assert [set(a) for a in answers] == [set(NAMES), {"a", "c"}, set(NAMES)]


def test_a_corrupted_reply_differs_in_one_bit() -> None:
    fault = Fault(site="b", message_type="query.update", occurrence=0, kind=FaultKind.CORRUPT)
    answer = ask(faults=(fault,))[0]["b"]
    difference = int.from_bytes(answer, "big") ^ int.from_bytes(b"\xff\x00b", "big")
    assert difference.bit_count() == 1


def test_a_late_reply_is_missed_and_does_not_answer_the_next_question(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fault = Fault(
        site="b", message_type="query.update", occurrence=0, kind=FaultKind.DELAY, delay_s=1.5
    )
    let_time_pass(monkeypatch)
    answers = ask(faults=(fault,), times=2)
    assert [set(a) for a in answers] == [{"a", "c"}, set(NAMES)]


def test_sites_work_at_the_same_time_when_there_are_workers() -> None:
    together = threading.Barrier(3, timeout=PATIENCE_S)

    def answer(body: bytes) -> RecordDict:
        together.wait()
        return echo(body)

    assert len(ask(answer, workers=3)[0]) == 3


def test_an_unknown_action_is_not_answered() -> None:
    with LocalGrid({name: site(name, echo) for name in NAMES}, workers=1) as grid:
        sites = FlowerSites(grid, {"a": 100})
        run_server_app(make_server_app(lambda _: None, (), timeout_s=0.1), grid)
        began = time.monotonic()
        assert list(sites.ask(Action.AGREE, {"a": b"", "z": b""}, timeout_s=PATIENCE_S)) == []
        assert time.monotonic() - began < PATIENCE_S / 2
