"""A short month: every event of the timetable, one soon after the other."""

from pathlib import Path

import pytest

from tests.deployment.month import TIMETABLE, run, say
from tests.deployment.month_table import table

ROUNDS = 20


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_in_a_month_of_mishaps_no_budget_is_forgotten_and_no_release_unlogged(
    tmp_path: Path,
) -> None:
    month = run(tmp_path, ROUNDS, say, stops=True)
    assert [one.event for one in month.happened] == list(TIMETABLE)
    say(table(month))
