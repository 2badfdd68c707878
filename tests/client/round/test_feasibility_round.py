"""The count leaves with a site's own noise, once a study, and only where it was approved."""

from pathlib import Path

import numpy as np
import pytest

from consilium.client.hospital.personal_store import PersonalStore
from consilium.client.hospital.policy import Policy
from consilium.client.ledger.store import Ledger
from consilium.client.round.charges import reserve_all, round_charges
from consilium.client.round.contribution import Contributor
from consilium.shared.errors import BudgetError, MessageError
from consilium.shared.rounds.contents import Purpose, RoundConfiguration, sum_parameters
from consilium.shared.rounds.feasibility import feasibility_noise, most_persons
from consilium.shared.secure_sum.fixed_point import decode
from consilium.shared.study.definition import Study, with_changes
from consilium.simulations.experiments.canary import cohort_of, usual_grid
from tests.hostile.neighbours import BASE
from tests.hostile.test_silence import KEYS, RUN
from tests.rosters import SIZE, sized_roster

STUDY = with_changes(BASE, study={"feasibility": {"epsilon": 0.2}})
ASKED = RoundConfiguration(purpose=Purpose.FEASIBILITY)
NOTHING = np.zeros(0, dtype=np.float32)
DRAWS = 400


def contributor(folder: Path, study: Study = STUDY, patients: int = 10) -> Contributor:
    cohort = cohort_of(usual_grid(study, patients=patients), usual_grid(study, patients=patients))
    return Contributor("a", study, cohort, Policy(), PersonalStore(folder))


def counts(made: Contributor, study: Study, draws: int = 1) -> np.ndarray:
    run = sum_parameters(study, sized_roster(KEYS, study.digest), RUN, site="a")
    spec = made.spec(ASKED, run.roster)
    rings = (made.vector(ASKED, NOTHING, number, run) for number in range(1, draws + 1))
    return np.stack([decode(ring, spec)["feasibility"][:] for ring in rings])


def test_a_site_asked_alone_hides_its_persons_in_its_own_noise(tmp_path: Path) -> None:
    drawn = counts(contributor(tmp_path), STUDY, DRAWS)
    noise = feasibility_noise(STUDY)
    assert (noise > 25).all()
    # 400 draws: the deviation is known to 3.5 %; ten times that never happens by chance.
    assert drawn.std(axis=0) == pytest.approx(noise, rel=0.35)
    assert not np.array_equal(drawn[0], drawn[1])


def test_without_privacy_the_numbers_are_exact_and_bounded_by_the_declared_size(
    tmp_path: Path,
) -> None:
    study = with_changes(STUDY, privacy={"mode": "none"})
    assert counts(contributor(tmp_path / "few", study), study)[0, 0] == 20
    [many] = counts(contributor(tmp_path / "many", study, patients=50), study)
    assert many[0] == pytest.approx(most_persons(study, SIZE), abs=0.01)  # not 100


def test_a_study_approved_without_a_count_is_not_counted(tmp_path: Path) -> None:
    with pytest.raises(MessageError, match="has no feasibility round"):
        contributor(tmp_path, BASE).check(ASKED, NOTHING)
    both = RoundConfiguration(purpose=Purpose.FEASIBILITY, evaluate=True)
    with pytest.raises(MessageError, match="ask for nothing else in that round"):
        contributor(tmp_path).check(both, NOTHING)
    contributor(tmp_path).check(ASKED, NOTHING)


def test_a_second_count_is_refused_in_whatever_run_and_costs_nothing(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite", lifetime_epsilon=16.0, delta=1e-5)
    [first] = round_charges(STUDY, ASKED, 1, bytes(32))
    assert first.shards == (0, 100)
    spent = reserve_all(ledger, (first,), STUDY)
    assert spent == pytest.approx([0.2], rel=1e-3)
    assert reserve_all(ledger, (first,), STUDY) == spent  # the same round again is the same release
    for number, run in ((2, bytes(32)), (1, bytes([1]) * 32)):
        with pytest.raises(BudgetError, match="is one more than the 1 that the study has"):
            reserve_all(ledger, round_charges(STUDY, ASKED, number, run), STUDY)
    assert len(ledger.entries()) == 1
