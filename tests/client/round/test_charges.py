"""A round is charged for what leaves in it, to the patients it is about."""

import pytest

from consilium.client.records.cohort import training_shards, validation_shards
from consilium.client.round.charges import round_charges
from consilium.shared.privacy.accounting import plan
from consilium.shared.rounds.contents import Purpose, RoundConfiguration
from tests.study_text import small_study

RUN = bytes(32)
STUDY = small_study(evaluation={"validation_fraction": 0.2})
PLAN = plan(STUDY)
TRAINING, HELD_OUT = training_shards(STUDY), validation_shards(STUDY)


@pytest.mark.parametrize(
    ("purpose", "evaluate", "expected"),
    [
        (Purpose.STATISTICS, False, [("statistics", PLAN.statistics, TRAINING)]),
        (Purpose.TRAINING, False, [("training", PLAN.training_round, TRAINING)]),
        (
            Purpose.TRAINING,
            True,
            [("training", PLAN.training_round, TRAINING), ("metrics", PLAN.metrics, HELD_OUT)],
        ),
        (Purpose.EVALUATION, False, [("metrics", PLAN.metrics, HELD_OUT)]),
    ],
)
def test_each_purpose_has_its_charges(purpose, evaluate, expected) -> None:
    asked = RoundConfiguration(purpose=purpose, evaluate=evaluate)
    charges = round_charges(STUDY, asked, 5, RUN)
    assert [(c.purpose, *c.events, c.shards) for c in charges] == expected
    assert {(c.study_digest, c.study_hash, c.round) for c in charges} == {(STUDY.digest, RUN, 5)}


@pytest.mark.parametrize("purpose", Purpose)
def test_without_privacy_nothing_is_charged(purpose) -> None:
    study = small_study(privacy={"mode": "none"}, evaluation={"validation_fraction": 0.2})
    assert round_charges(study, RoundConfiguration(purpose=purpose, evaluate=True), 5, RUN) == ()
