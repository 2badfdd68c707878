"""A process's log in its folder, beside standard error: bounded, rotated, mode 0600.

Besides what a person reads, a line holds the sentence as it stands in the code, before anything was
put into it (``template``), and the kinds of the errors that were (``kinds``). These say which step
failed and nothing else, so they may be handed on (``consilium-site support``).
"""

import json
import logging
import os
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any, TextIO

from consilium.shared.service.logs import JsonFormatter

FOLDER = "logs"
LARGEST_BYTES = 4 << 20
KEPT = 4  # files of that size behind the one that is written

OURS = "consilium."


class LogFileHandler(RotatingFileHandler):
    """Writes ``NAME.jsonl``; what a full disk does not take is lost here, not on standard error."""

    def __init__(self, folder: Path, name: str) -> None:
        (folder / FOLDER).mkdir(mode=0o700, exist_ok=True)
        super().__init__(
            folder / FOLDER / f"{name}.jsonl",
            maxBytes=LARGEST_BYTES,
            backupCount=KEPT,
            encoding="utf-8",
        )
        self.setFormatter(_Formatter())

    def _open(self) -> TextIO:  # type: ignore[override]
        file = os.open(self.baseFilename, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        return os.fdopen(file, "a", encoding=self.encoding)

    def handleError(self, record: logging.LogRecord) -> None:
        """Say nothing: logging's own report would quote the record."""


class _Formatter(JsonFormatter):
    def format(self, record: logging.LogRecord) -> str:
        content: dict[str, Any] = json.loads(super().format(record))
        if record.name.startswith(OURS):
            content["template"] = str(record.msg)
            arguments = record.args if isinstance(record.args, tuple) else ()
            content["kinds"] = [type(a).__name__ for a in arguments if isinstance(a, Exception)]
        return json.dumps(content)


def log_to_file(folder: Path, name: str) -> None:
    """Let this process's logs also go to a file in its folder; a folder that takes none is told."""
    try:
        logging.getLogger().addHandler(LogFileHandler(folder, name))
    except OSError as error:
        logging.getLogger(__name__).warning(
            "%s takes no log (%s); the log goes to standard error alone", folder, error.strerror
        )


def templates(folder: Path, name: str, most: int) -> list[dict[str, Any]]:
    """Return the last lines of a log as they may be handed on, latest last.

    Only the time, the level, the module, the sentence as it stands in the code and the kinds and
    places of errors are kept.
    """
    file = folder / FOLDER / f"{name}.jsonl"
    lines: list[str] = []
    for path in (file.with_name(f"{name}.jsonl.1"), file):
        try:
            lines += path.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            continue
    found = []
    for line in lines[-most:]:
        try:
            content = json.loads(line)
        except ValueError:
            continue
        if not isinstance(content, dict) or "template" not in content:
            continue
        kept = ("at", "level", "logger", "template", "kinds", "exception")
        found.append({key: content[key] for key in kept if key in content})
    return found
