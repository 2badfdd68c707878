"""What the coordinator holds of a model while its rounds run."""

import weakref
from pathlib import Path

from consilium.server.study.run import run_study
from tests.client.hospital.hospitals import STUDY, Hospitals, fresh


def test_the_weights_that_a_run_began_with_are_let_go(tmp_path: Path) -> None:
    """Each copy of a large model counts: what is held is the newest weights and a round's sum."""
    hospitals, state = Hospitals(tmp_path), fresh()
    first = weakref.ref(state.server.weights_D)
    rounds = run_study(STUDY, hospitals.parameters, hospitals, state)
    del state
    statistics, *trained = (next(rounds).state for _ in range(3))
    assert first() is statistics.server.weights_D
    assert [state.trained for state in trained] == [1, 2]
    del statistics
    assert first() is None
