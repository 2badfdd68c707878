"""What a hospital may hand on when its site fails: which step, which version, which code.

Guarantee: the bundle holds nothing of a record, a path, a setting or a name in this hospital's
systems: only this program's own sentences as they stand in its code, codes, times, counts of its
own messages, and versions.
"""

import json
import platform
from datetime import UTC, datetime
from importlib import metadata
from typing import Any

from consilium.client.hospital.folder import LOG_NAME, SiteFolder
from consilium.client.service.health import LOCK, is_held
from consilium.client.service.last_refusal import read_last_refusal
from consilium.client.service.preflight import preflight
from consilium.shared.audit.log import FILE_NAME as AUDIT_FILE
from consilium.shared.audit.summary import summarise
from consilium.shared.errors import ConsiliumError
from consilium.shared.service.log_file import templates
from consilium.shared.version import VERSION

MOST_LINES = 500
PACKAGES = ("cryptography", "flwr", "httpx", "numpy", "opacus", "polars", "pydantic", "torch")


def support_bundle(folder: SiteFolder, *, now: datetime | None = None) -> dict[str, Any]:
    """Return the bundle; every part that cannot be had is the kind of the error instead."""
    return {
        "made_at": (now or datetime.now(UTC)).isoformat(timespec="seconds"),
        "versions": _versions(),
        "preflight": [
            {"test": test.name, "ok": test.ok, **({"code": test.code} if test.code else {})}
            for test in preflight(folder)
        ],
        "running": is_held(folder.path / LOCK),
        "last_refusal": _refusal(folder),
        "audit": _audit(folder),
        "log": templates(folder.path, LOG_NAME, MOST_LINES),
    }


def to_text(bundle: dict[str, Any]) -> str:
    """Return the bundle as it is read and sent: JSON, one log line a line."""
    log = [json.dumps(line) for line in bundle["log"]]
    head = json.dumps({key: part for key, part in bundle.items() if key != "log"}, indent=1)
    lines = ",\n  ".join(log)
    return f'{head[:-2]},\n "log": [\n  {lines}\n ]\n}}\n'


def _versions() -> dict[str, str]:
    found = {"consilium": VERSION, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found | {"system": platform.system(), "machine": platform.machine()}


def _refusal(folder: SiteFolder) -> dict[str, str] | None:
    """Return which step was refused last, and the code, without the reason."""
    known = read_last_refusal(folder.path)
    return known and {key: str(known.get(key, "")) for key in ("at", "asked", "code")}


def _audit(folder: SiteFolder) -> dict[str, Any]:
    """Return how many entries of which kind the audit log has."""
    try:
        found = summarise(folder.path / AUDIT_FILE)
    except ConsiliumError as error:
        return {"error": type(error).__name__}
    return {
        "entries": found.entries,
        "last_at": found.last_at,
        "counts": dict(sorted(found.counts.items())),
        "divergences": sum(found.divergences.values()),
    }
