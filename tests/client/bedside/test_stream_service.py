"""Events as lines, on standard input and over HTTP, by real processes and sockets."""

import http.client
import io
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from consilium.client.bedside.scorer import Scorer
from consilium.client.bedside.stream_service import (
    LARGEST_BODY_BYTES,
    LARGEST_LINE_BYTES,
    StreamService,
    answer_line,
    lines_of,
)
from consilium.shared.errors import SettingsError
from tests.client.bedside.bedside_resources import encounter
from tests.client.bedside.test_scorer import STUDY
from tests.needs import PATIENCE_S
from tests.signed_models import KEY, some_signed, written

ROOT = Path(__file__).parents[3]
EVENT = {"stay": "s", "hours": 1, "variable": "HR", "value": 130, "unit": "/min"}


def lines(*events: dict[str, object]) -> bytes:
    return b"".join(json.dumps(event).encode() + b"\n" for event in events)


@pytest.fixture
def service() -> Iterator[StreamService]:
    made = StreamService(Scorer(some_signed(STUDY)), port=0)
    yield made
    made.close()


def ask(
    service: StreamService, body: bytes, *, path: str = "/events", method: str = "POST", **head: str
) -> tuple[int, list[dict[str, object]]]:
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=PATIENCE_S)
    connection.request(method, path, body=body, headers=head)
    response = connection.getresponse()
    answers = [json.loads(line) for line in response.read().splitlines()]
    connection.close()
    return response.status, answers


def test_each_line_is_answered_in_order_and_a_bad_one_changes_nothing(
    service: StreamService,
) -> None:
    status, (good,) = ask(service, lines(EVENT))
    assert status == 200
    status, answers = ask(service, lines(EVENT, EVENT | {"unit": "kg"}, {"stay": "s", "hours": 1}))
    assert status == 422
    assert [set(answer) == {"error"} for answer in answers] == [False, True, False]
    assert "cannot be converted" in str(answers[1]["error"])
    assert answers[2]["outputs"] == good["outputs"]
    assert ask(service, b"", path="/health", method="GET") == (200, [{"status": "ok", "stays": 1}])


def test_only_programs_on_this_machine_are_answered(service: StreamService) -> None:
    for head in ({"Host": "evil.example"}, {"Host": "127.0.0.1", "Origin": "http://127.0.0.1"}):
        for method, path in (("POST", "/events"), ("GET", "/health")):
            status, (told,) = ask(service, lines(EVENT), path=path, method=method, **head)
            assert status == 403
            assert "only programs on this machine" in str(told["error"])
    assert ask(service, b"", path="/health", method="GET")[1][0]["stays"] == 0


def test_other_paths_and_too_much_at_once_are_refused(service: StreamService) -> None:
    assert ask(service, lines(EVENT), path="/other")[0] == 404
    assert ask(service, b"", path="/other", method="GET")[0] == 404
    for length in (str(LARGEST_BODY_BYTES + 1), "9" * 5000, "-1", ""):
        connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=PATIENCE_S)
        connection.putrequest("POST", "/events")
        connection.putheader("Content-Length", length)
        connection.endheaders()
        assert connection.getresponse().status == 413
        connection.close()
    with pytest.raises(SettingsError, match="choose another --http"):
        StreamService(Scorer(some_signed(STUDY)), port=service.port)


def test_many_connections_at_once_get_their_own_answers(service: StreamService) -> None:
    found: dict[str, list[int]] = {}

    def nurse(name: str) -> None:
        found[name] = [
            ask(service, lines(EVENT | {"stay": name, "hours": hour}))[1][0]["steps"]  # type: ignore[misc]
            for hour in range(0, 12, 2)
        ]

    threads = [threading.Thread(target=nurse, args=(f"stay {n}",)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {f"stay {n}": [1, 2, 3, 4, 5, 6] for n in range(8)}


def test_a_client_that_goes_away_leaves_no_traceback(
    service: StreamService, capfd: pytest.CaptureFixture[str]
) -> None:
    before = threading.active_count()
    reset = struct.pack("ii", 1, 0)  # close with a reset, so that sending the answer fails
    for _ in range(5):
        with socket.create_connection(("127.0.0.1", service.port), timeout=PATIENCE_S) as gone:
            gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
            head = b"POST /events HTTP/1.1\r\nHost: localhost\r\nContent-Length: 500\r\n\r\n"
            gone.sendall(head + lines(EVENT))
    assert ask(service, lines(EVENT))[0] == 200
    deadline = time.monotonic() + PATIENCE_S
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert capfd.readouterr().err == ""


def test_a_line_without_end_takes_no_memory_and_the_next_is_read() -> None:
    stream = io.BytesIO(b"x" * (10 * LARGEST_LINE_BYTES) + b"\n" + lines(EVENT) + b"last")
    long, event, last = lines_of(stream)
    assert len(long) == LARGEST_LINE_BYTES + 1
    assert (event, last) == (lines(EVENT), b"last")


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (b"{", "is not JSON"),
        (b"\xff", "is not JSON"),
        (b"[" * 9000, "is not JSON"),
        (b"[1]", "is not a JSON object"),
        (b'"' + b"x" * LARGEST_LINE_BYTES + b'"', "more than"),
        (b'{"stay": "s", "hours": 1, "variable": "HR", "value": NaN, "unit": "/min"}', "finite"),
        (b'{"stay": "s", "hours": 1, "variable": "HR", "value": 1' + b"0" * 400 + b"}", "finite"),
        (b'{"stay": "s", "hours": 1' + b"0" * 400 + b"}", "is outside 0 to 12"),
        (b'{"stay": "s", "hours": 12.0001}', "hours 12.0001 is outside 0 to 12"),
        (b'{"stay": "s", "hours": 1, "variable": ["HR"], "value": 1}', "none of this model's"),
        (b'{"stay": "s", "hours": 1, "value": 80}', "names no variable"),
        (b'{"stay": "s", "end": "false"}', "must be true or false"),
    ],
)
def test_what_is_no_event_is_answered_with_a_sentence(line: bytes, told: str) -> None:
    answer, taken = answer_line(Scorer(some_signed(STUDY)), line)
    assert not taken
    assert told in json.loads(answer)["error"]


def streaming(folder: Path, *options: str) -> subprocess.Popen[str]:
    """Return the command, as a process that streams a model made in a folder."""
    written(folder / "model", STUDY)
    command = [sys.executable, "-m", "consilium.client", "stream", str(folder / "model")]
    return subprocess.Popen(
        [*command, "--signer", KEY.public.hex(), *options],
        cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def after_its_greeting(process: subprocess.Popen[str]) -> None:
    assert process.stderr is not None
    assert "not for use on patients" in process.stderr.readline()
    assert "observed: share of validation patients" in process.stderr.readline()


@pytest.mark.slow
def test_the_command_answers_standard_input_line_by_line_and_fails_if_any_line_did(
    tmp_path: Path,
) -> None:
    process = streaming(tmp_path)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(lines(EVENT).decode())
    process.stdin.flush()
    first = json.loads(process.stdout.readline())
    assert first["outputs"][0]["reasons"][0]["variable"] == "HR"
    last = lines(EVENT | {"variable": "XX"}).decode()
    out, told = process.communicate(last, timeout=PATIENCE_S)
    assert "none of this model's" in json.loads(out)["error"]
    assert process.returncode == 1
    assert "1 of 2 events could not be used" in told
    assert "Traceback" not in told


# After FHIR, polars is there, which would let a thread that waits sleep through Ctrl-C.
@pytest.mark.slow
@pytest.mark.parametrize("first", [EVENT, encounter()], ids=["event", "fhir"])
def test_the_command_serves_http_until_it_is_interrupted(
    tmp_path: Path, first: dict[str, object]
) -> None:
    process = streaming(tmp_path, "--http", "0")
    after_its_greeting(process)
    assert process.stderr is not None
    address = process.stderr.readline().split("://")[1].split("/")[0]
    connection = http.client.HTTPConnection(address, timeout=PATIENCE_S)
    connection.request("POST", "/events", body=lines(first))
    assert "error" not in json.loads(connection.getresponse().read())
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, told) == (0, "")


@pytest.mark.slow
@pytest.mark.parametrize("first", [EVENT, encounter()], ids=["event", "fhir"])
def test_the_command_that_waits_for_a_line_is_interrupted(
    tmp_path: Path, first: dict[str, object]
) -> None:
    process = streaming(tmp_path)
    after_its_greeting(process)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(lines(first).decode())
    process.stdin.flush()
    assert "error" not in json.loads(process.stdout.readline())
    time.sleep(0.5)  # until it waits for the next
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=PATIENCE_S) == 0  # though its input is still open
    assert process.communicate() == ("", "")
