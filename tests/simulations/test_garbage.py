"""A study whose sums one site voids with garbage finds that site and goes on without it."""

import json
from dataclasses import replace

import pytest

from consilium.client.secure_sum.masking import SiteMasking
from consilium.server.study.checkpoints import Checkpoint, load_checkpoint
from consilium.server.study.run import RunState
from consilium.shared.privacy.accounting import affordable_rounds, epsilon_spent, plan
from consilium.shared.secure_sum.tail import TAIL
from consilium.shared.study.definition import parse_study, with_changes
from consilium.simulations.cohorts.study_cohorts import cohorts_for
from consilium.simulations.federation.run import Federation
from consilium.simulations.figures.held_out import HeldOut
from consilium.simulations.report.records import left_out_sentence
from tests.server.secure_sum.test_narrowed_rounds import off_by_one
from tests.server.study.test_checkpoints import checkpoint
from tests.simulations.test_federation import TEXT as TINY


@pytest.mark.slow
def test_statistics_that_came_out_void_are_paid_for_with_rounds_of_training() -> None:
    study = with_changes(parse_study(TINY), privacy={"mode": "site"}, study={"rounds": 200})
    costs, before = plan(study), checkpoint(0).state
    state = replace(before, normalisation=b"", trained=0)
    for void in (True, True, False):
        state = state.after_statistics(study, void=void)
    assert state.statistics == 3
    assert 0 < state.trained < 20
    left = study.rounds - state.trained
    assert left == affordable_rounds(study, 3)
    events = costs.statistics.repeated(3), costs.training_round.repeated(left)
    assert epsilon_spent(events, costs.delta) <= study.privacy.epsilon
    more = costs.statistics.repeated(3), costs.training_round.repeated(left + 1)
    assert epsilon_spent(more, costs.delta) > study.privacy.epsilon
    free = with_changes(study, privacy={"mode": "none"})
    assert RunState(server=before.server).after_statistics(free, void=True).trained == 0


SEVEN = with_changes(
    parse_study(TINY),
    study={"sites": [f"house-{number}" for number in range(1, 8)], "rounds": 12},
    aggregation={"threshold": 5, "minimum_sites": 5},
    privacy={"mode": "distributed"},
    training={"local_steps": 1},
    evaluation={"validation_fraction": 0.0},
)


@pytest.fixture
def garbage_from_round_three(monkeypatch: pytest.MonkeyPatch) -> str:
    liar, mask = "house-4", SiteMasking.mask

    def altered(self, vector, spec):
        masked = mask(self, vector, spec)
        if self.site == liar and masked.round >= 3:
            return off_by_one(masked, spec.length + TAIL, spec.ring_bits)
        return masked

    monkeypatch.setattr(SiteMasking, "mask", altered)
    return liar


@pytest.mark.slow
def test_a_study_whose_sums_one_site_voids_ends_with_a_model_and_says_who_was_left_out(
    tmp_path, garbage_from_round_three
) -> None:
    liar, records = garbage_from_round_three, []
    cohorts = cohorts_for(SEVEN, None)
    federation = Federation(SEVEN, cohorts.sites, tmp_path, workers=2, protocol=True)
    finished = federation.train(records.append, HeldOut.read(cohorts.test, SEVEN))
    assert finished.state.finished
    assert finished.state.left_out == (liar,)
    assert records[-1]["left_out"] == [liar]
    assert set(records[-1]["sites"]) == set(SEVEN.sites) - {liar}
    void = [record["round"] for record in records if record["void"]]
    assert void[0] == 3
    assert len(void) <= 5
    assert all(len(record["sites"]) >= 5 for record in records if not record["void"])
    assert all(not record["narrowing"] for record in records[:3])
    assert any(record["narrowing"] for record in records[3:])
    training = [record for record in records if record["purpose"] == "training"]
    assert len(training) == SEVEN.rounds
    for site in SEVEN.sites:  # every round that a site masked is charged, void ones too
        asked = [r for r in training if site not in r["left_out"]]
        entries = federation.ledger(site).entries()
        assert sum(entry.release.purpose == "training" for entry in entries) == len(asked)
        assert federation.ledger(site).summary().total.spent <= SEVEN.privacy.epsilon * (1 + 1e-9)
    run = {"rounds": training, "left_out": list(finished.state.left_out)}
    assert liar in left_out_sentence(json.loads(json.dumps(run)))
    assert left_out_sentence({"rounds": records[:2], "left_out": []}) == ""


@pytest.mark.slow
def test_a_study_resumed_in_the_middle_of_the_search_ends_without_the_culprit(
    tmp_path, garbage_from_round_three
) -> None:
    cohorts, seen = cohorts_for(SEVEN, None), []

    class KilledError(Exception):
        pass

    def show(record) -> None:
        seen.append(record)
        if record["round"] == 4:
            raise KilledError

    test = HeldOut.read(cohorts.test, SEVEN)
    with pytest.raises(KilledError):
        Federation(SEVEN, cohorts.sites, tmp_path, workers=2, protocol=True).train(show, test)
    found = load_checkpoint(tmp_path)
    assert isinstance(found, Checkpoint)
    assert found.state.groups[0].seen
    again = Federation(SEVEN, cohorts.sites, tmp_path, workers=2, protocol=True)
    finished = again.train(seen.append, test)
    assert finished.state.left_out == (garbage_from_round_three,)
    assert finished.history[-1]["void"] is None
