"""What is shown of the counts: totals with their error, and small cells never as zero."""

import numpy as np
import pytest

from consilium.server.figures.feasibility import person_totals, persons_in_words
from consilium.shared.rounds.feasibility import feasibility_noise
from tests.study_text import small_study

STUDY = small_study(feasibility={})


def totals(*counts: float, study=STUDY) -> list[dict]:
    found = person_totals(study, np.array(counts), sites=4, scale=1024.0)
    return [total.to_json() for total in found]


def test_a_total_has_the_error_of_all_sites_noise() -> None:
    persons, outcome, _ = totals(2000.4, 180.0, 1900.0)
    assert (persons["persons"], outcome["name"], outcome["persons"]) == (2000, "y", 180)
    two_sigma = 1.96 * 2 * feasibility_noise(STUDY)[0]
    assert persons["error"] == pytest.approx(two_sigma, abs=1.0)


@pytest.mark.parametrize("few", [9.4, 0.0, -300.0])
def test_a_small_cell_is_suppressed_and_not_told_from_an_empty_one(few: float) -> None:
    assert totals(2000, few, 10.0) == totals(2000, 3.0, 10.0)
    found = totals(2000, few, 10.0)
    assert [total["persons"] for total in found] == [2000, None, 10]
    words = persons_in_words(STUDY, found)
    assert [row[1] for row in words] == ["2000", "suppressed", "10"]
    assert [row[0] for row in words] == ["in the cohort", "with y", "with hr measured"]


def test_without_privacy_there_is_no_error_and_small_cells_are_hidden_all_the_same() -> None:
    study = small_study(feasibility={"smallest_cell": 5}, privacy={"mode": "none"})
    found = totals(40, 4, 5, study=study)
    assert [(total["persons"], total["error"]) for total in found] == [(40, 0), (None, 0), (5, 0)]


def test_a_study_that_asks_for_no_count_has_no_totals() -> None:
    with pytest.raises(ValueError, match="asks for no feasibility round"):
        person_totals(small_study(), np.zeros(3), sites=3, scale=1.0)
