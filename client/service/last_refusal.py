"""Why the site refused last, in full, in a file of its own that is never sent.

The audit log, which an auditor may compare with the coordinator's, holds what was told: a code and
its fixed sentence. The whole reason may name a path or a setting.
"""

import json
import logging
from pathlib import Path
from typing import Any

from consilium.client.round.answer import Answer
from consilium.shared.clock import utc_now
from consilium.shared.files.atomic_file import write_atomically
from consilium.shared.files.permissions import PRIVATE_FILE
from consilium.shared.secure_sum.messages import Action

FILE_NAME = "last-refusal.json"

log = logging.getLogger(__name__)


def write_last_refusal(folder: Path, action: Action, answer: Answer) -> None:
    """Write why an answer is a refusal; a failure is only logged."""
    if answer.refusal is None:
        return
    content = {
        "at": utc_now().isoformat(),
        "asked": action.value,
        "code": answer.refusal.code,
        "reason": answer.reason[:4000],
    }
    try:
        write_atomically(folder / FILE_NAME, json.dumps(content).encode(), mode=PRIVATE_FILE)
    except OSError as error:
        log.warning("%s could not be written: %s", folder / FILE_NAME, error.strerror)


def read_last_refusal(folder: Path) -> dict[str, Any] | None:
    """Return when the site refused last, what was asked, the code and the reason; None if never."""
    try:
        content = json.loads((folder / FILE_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None
