"""Work that takes longer than a page should: done in a thread, looked at again by the browser."""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from consilium.shared.clock import utc_now
from consilium.shared.errors import ConsiliumError

MOST = 50

log = logging.getLogger(__name__)


@dataclass(kw_only=True)
class Job:
    """One piece of work: who asked for it and when, and what came of it.

    Attributes:
        by: the person.
        began: when.
        running: whether it is still being done.
        result: what it returned; None until then, or if it failed.
        failed: the sentence if it failed, else empty.
    """

    by: str
    began: datetime
    running: bool = True
    result: Any = None
    failed: str = ""


class Jobs:
    """The work of a running application, by name; each name's is done once at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._jobs: dict[str, Job] = {}

    def find(self, name: str) -> Job | None:
        """Return the newest job of this name."""
        with self._lock:
            return self._jobs.get(name)

    def start(self, name: str, work: Callable[[], Any], *, by: str) -> Job:
        """Begin work in a thread, or return the job of this name that is running already."""
        with self._lock:
            known = self._jobs.get(name)
            if known is not None and known.running:
                return known
            job = Job(by=by, began=utc_now())
            self._jobs.pop(name, None)
            self._jobs[name] = job
            for old in [key for key, one in self._jobs.items() if not one.running][:-MOST]:
                del self._jobs[old]
        threading.Thread(target=_do, args=(job, work), name=f"job {name[:20]}", daemon=True).start()
        return job


def _do(job: Job, work: Callable[[], Any]) -> None:
    try:
        job.result = work()
    except ConsiliumError as error:
        job.failed = str(error)
    except Exception:
        log.exception("a piece of work for the web page failed")
        job.failed = "this failed for a reason that is in the log (logs/web.jsonl)"
    finally:
        job.running = False
