"""Logs are one JSON object a line and never quote what an unforeseen error quotes."""

import io
import json
import logging
import os

import pytest

from consilium.shared.service.logs import configure_logs

log = logging.getLogger("client.example")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_record_is_one_line_of_json_whatever_the_message_holds():
    stream = io.StringIO()
    configure_logs(stream=stream)
    log.warning('two\nlines and a "quote" %s', "é")
    log.debug("not shown")
    (line,) = stream.getvalue().splitlines()
    told = json.loads(line)
    assert told["message"] == 'two\nlines and a "quote" é'
    assert (told["level"], told["logger"]) == ("warning", "client.example")
    assert told["at"].endswith("+00:00")


@pytest.mark.parametrize("stream", [io.StringIO(), Terminal()])
def test_an_exceptions_text_and_source_stay_out_and_its_place_is_told(stream):
    configure_logs(stream=stream)
    try:
        raise ValueError("patient 4711 has HR 180")
    except ValueError:
        log.exception("a defect")
    told = stream.getvalue().replace(str(os.getpid()), "")  # which may hold it by chance
    assert "4711" not in told
    assert "ValueError" in told
    assert "test_logs.py:" in told


def test_a_terminal_gets_plain_lines_and_setting_up_twice_does_not_double_them():
    stream = Terminal()
    configure_logs(stream=stream)
    configure_logs(stream=stream)
    log.info("site north is ready")
    (line,) = stream.getvalue().splitlines()
    assert line.endswith("info    site north is ready")


def test_libraries_speak_from_warnings_on_and_long_messages_are_cut():
    stream = io.StringIO()
    configure_logs(stream=stream)
    logging.getLogger("httpx").info("chatter")
    logging.getLogger("httpx").warning("x" * 10_000)
    (line,) = stream.getvalue().splitlines()
    assert len(line) < 5000
