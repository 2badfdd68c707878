"""The figures of risks: whatever few patients a run judged, they are drawn."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consilium.shared.figures.score_counts import count_scores, first_edges
from consilium.simulations.report.groups import Group
from consilium.simulations.report.risk_charts import risk_charts

EDGES = first_edges(20)


def group_of(risks: list[float], outcomes: list[bool]) -> Group:
    counts = count_scores(np.array(risks), np.array(outcomes), np.ones(len(risks)), EDGES)
    return Group(
        kind="all",
        name="all",
        patients=len(risks),
        rows=len(risks),
        positives=float(sum(outcomes)),
        expected=sum(risks),
        figures={},
        calibration=None,
        counts_2B=counts,
        edges_L=EDGES,
    )


def test_patients_whose_drawn_groups_have_no_outcome_are_drawn() -> None:
    """Seven of one risk without the outcome, and one with it alone: too few to be a point."""
    charts = risk_charts(group_of([0.2] * 7 + [0.9], [False] * 7 + [True]), whose="patients")
    [calibration] = [chart for chart in charts if chart.name == "calibration"]
    assert [row[1] for row in calibration.table.rows] == ["0.000"]


@pytest.mark.slow
@given(
    st.lists(st.tuples(st.floats(0.0, 1.0), st.booleans()), min_size=1, max_size=12),
    st.integers(1, 20),
)
@settings(max_examples=5, deadline=None)
def test_few_patients_of_any_risks_and_outcomes_are_drawn(
    rows: list[tuple[float, bool]], times: int
) -> None:
    risks, outcomes = zip(*rows * times, strict=True)
    names = [chart.name for chart in risk_charts(group_of(risks, outcomes), whose="patients")]
    assert bool(names) == (0 < sum(outcomes) < len(outcomes))


@pytest.mark.parametrize("outcome", [False, True])
def test_one_outcome_alone_is_not_drawn(outcome: bool) -> None:
    assert not risk_charts(group_of([0.1, 0.4], [outcome] * 2), whose="patients")
