"""Logs for programs: one JSON object a line, set up in entry points only.

Guarantee: a record carries what the code wrote into its sentence, and of an exception its kind and
where it came from, never its text or its source lines: those of an unforeseen error may quote a
patient's values.
"""

import json
import logging
import os
import sys
import traceback
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

from consilium.shared.service.terminal import one_line

QUIET = ("flwr", "httpx", "httpcore", "uvicorn", "urllib3", "grpc", "alembic", "matplotlib")
LARGEST_MESSAGE = 4000
FRAMES = 12


class JsonFormatter(logging.Formatter):
    """A log record as one line of JSON: at, level, logger, message, process, and exception."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; whatever the message holds, it has no line break."""
        content: dict[str, object] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage()[:LARGEST_MESSAGE],
            "process": record.process,
        }
        if record.exc_info and record.exc_info[1] is not None:
            content["exception"] = _where(record.exc_info[1])
        return json.dumps(content)


class PlainFormatter(logging.Formatter):
    """The same for a person at a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        at = datetime.fromtimestamp(record.created).astimezone()
        told = one_line(record.getMessage()[:LARGEST_MESSAGE])
        line = f"{at:%H:%M:%S} {record.levelname.lower():<8}{told}"
        if record.exc_info and record.exc_info[1] is not None:
            place = _where(record.exc_info[1])
            line += f" ({place['kind']} at {place['at']})"
        return line


def configure_logs(*, level: int = logging.INFO, stream: TextIO | None = None) -> None:
    """Send this process's logs to ``stream`` (standard error), replacing what was set up before.

    A terminal gets plain lines, anything else JSON. Libraries log warnings and above.
    """
    stream = stream or sys.stderr
    handler = logging.StreamHandler(stream)
    plain = stream.isatty() and "CONSILIUM_JSON_LOGS" not in os.environ
    handler.setFormatter(PlainFormatter() if plain else JsonFormatter())
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level)
    for name in QUIET:
        logging.getLogger(name).setLevel(max(level, logging.WARNING))
    logging.captureWarnings(capture=True)


def _where(error: BaseException) -> dict[str, str]:
    """Return an exception's kind and its innermost frames as file, line and function."""
    frames = traceback.extract_tb(error.__traceback__)[-FRAMES:]
    places = [f"{Path(f.filename).name}:{f.lineno} {f.name}" for f in frames]
    return {"kind": type(error).__name__, "at": "; ".join(places)}
