"""What a round will cost this site's privacy budget."""

from consilium.client.ledger.store import Ledger, Release
from consilium.client.records.cohort import training_shards, validation_shards
from consilium.client.round.evaluation_round import evaluates
from consilium.shared.privacy.accounting import PrivacyEvent, plan
from consilium.shared.rounds.contents import Purpose, RoundConfiguration
from consilium.shared.study.definition import Study

CALIBRATION = Purpose.CALIBRATION.value


def round_charges(
    study: Study, asked: RoundConfiguration, round_number: int, study_hash: bytes
) -> tuple[Release, ...]:
    """Return the releases to reserve before anything is computed; empty without privacy.

    Args:
        study: the approved study.
        asked: what the round is for.
        round_number: number of the secure sum.
        study_hash: identifies the run.
    """
    planned = plan(study)
    if planned is None:
        return ()
    training, held_out = training_shards(study), validation_shards(study)
    costs: list[tuple[str, PrivacyEvent, tuple[int, int]]] = []
    if asked.purpose is Purpose.STATISTICS:
        costs.append(("statistics", planned.statistics, training))
    if asked.purpose is Purpose.TRAINING:
        costs.append(("training", planned.training_round, training))
    if asked.purpose is Purpose.CALIBRATION and planned.calibration is not None:
        costs.append((CALIBRATION, planned.calibration, training))
    if evaluates(asked):
        costs.append(("metrics", planned.metrics, held_out))
    return tuple(
        Release(
            study_digest=study.digest,
            study_hash=study_hash,
            study_name=study.name,
            round=round_number,
            purpose=purpose,
            events=(event,),
            shards=shards,
            unit=study.privacy.unit,
        )
        for purpose, event, shards in costs
    )


def reserve_all(ledger: Ledger, releases: tuple[Release, ...], study: Study) -> list[float]:
    """Charge a round's releases before anything is computed; return the study's epsilon after each.

    Raises:
        BudgetError: the study's budget or the lifetime's does not cover them, or there were as many
            calibration rounds as the study has.
        PrivacyError: the round was charged before for something else, or the ledger is older than
            it was.
    """
    return [
        ledger.reserve(
            release,
            study_epsilon=study.privacy.epsilon,
            study_delta=study.privacy.delta,
            most=study.calibration_rounds if release.purpose == CALIBRATION else None,
        )
        for release in releases
    ]
