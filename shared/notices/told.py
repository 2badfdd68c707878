"""What became of notices, for ``status``, ``watch`` and ``notices`` of either side."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from consilium.shared.errors import SettingsError
from consilium.shared.notices.outbox import read_summary


def notices_status(folder: Path) -> dict[str, Any] | None:
    """Return the counts and the last failure, as JSON has them; None if none were ever sent.

    Keys: ``sent``, ``waiting``, ``given_up`` and ``failed_attempts`` (of deliveries to one address
    each), ``lost`` (events beyond what is kept), ``last_failure`` (``at``, ``to``, ``why``);
    or ``error`` alone.
    """
    try:
        found = read_summary(folder)
    except SettingsError as error:
        return {"error": str(error)}
    if found is None:
        return None
    failure = None
    if found.failure is not None:
        at, to, why = found.failure
        told = datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")
        failure = {"at": told, "to": to, "why": why}
    return {
        "sent": found.sent,
        "waiting": found.waiting,
        "given_up": found.given_up,
        "failed_attempts": found.failed_attempts,
        "lost": found.lost,
        "last_failure": failure,
    }


def notices_lines(status: dict[str, Any] | None) -> list[str]:
    """Return what :func:`notices_status` returned in lines for people; none if there is nothing."""
    if status is None:
        return []
    if "error" in status:
        return [f"not known: {status['error']}"]
    lines = [
        f"{status['sent']} sent, {status['waiting']} waiting, {status['given_up']} given up, "
        f"{status['failed_attempts']} attempts failed"
        + (f", {status['lost']} events lost" if status["lost"] else "")
    ]
    if (failure := status["last_failure"]) is not None:
        lines.append(f"{failure['at']} {failure['to']}: {failure['why']}")
    return lines
