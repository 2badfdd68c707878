"""Work for a page runs once at a time, and what came of it is told without quoting a defect."""

import threading
from collections.abc import Callable

import pytest

from consilium.shared.errors import DataError
from consilium.shared.web.jobs import MOST, Job, Jobs


def ended(found: Job | None) -> Job:
    """The job, once it has ended."""
    assert found is not None
    for thread in threading.enumerate():
        if thread.name.startswith("job"):
            thread.join(60)
    assert not found.running
    return found


def test_a_job_that_runs_is_not_begun_twice() -> None:
    made, go = Jobs(), threading.Event()

    def work() -> int:
        assert go.wait(60)
        return 7

    first = made.start("check", work, by="anna")
    assert made.start("check", work, by="bert") is first
    assert made.find("check") is first
    assert made.find("other") is None
    go.set()
    done = ended(first)
    assert (done.result, done.failed, done.by) == (7, "", "anna")
    again = made.start("check", lambda: 8, by="bert")
    assert ended(again).result == 8
    assert made.find("check") is again


def fail(error: Exception) -> Callable[[], None]:
    def work() -> None:
        raise error

    return work


def test_a_mistake_is_told_and_a_defect_is_not_quoted(caplog: pytest.LogCaptureFixture) -> None:
    made = Jobs()
    told = ended(made.start("a", fail(DataError("no file")), by="anna"))
    assert told.failed == "no file"
    broken = ended(made.start("b", fail(RuntimeError("patient 4711")), by="anna"))
    assert "4711" not in broken.failed
    assert "in the log" in broken.failed
    assert "failed" in caplog.text


def test_only_so_many_results_are_kept() -> None:
    made = Jobs()
    for number in range(MOST + 3):
        ended(made.start(str(number), lambda: None, by="anna"))
    assert made.find("0") is None
    assert made.find(str(MOST + 2)) is not None
