"""What a site's ledger says was spent must be no less than an attack could prove.

A new ledger is charged as a site charges it, release by release and then for a second run, after it
was opened again. An accountant that forgets earlier releases stays at the cost of the last one.
"""

from pathlib import Path

from consilium.client.ledger.store import Ledger
from consilium.client.round.charges import round_charges
from consilium.shared.errors import BudgetError
from consilium.shared.privacy.accounting import PrivacyPlan, epsilon_spent
from consilium.shared.rounds.contents import Purpose, RoundConfiguration
from consilium.shared.study.definition import Study
from consilium.simulations.experiments.audit_findings import Finding, verdict
from consilium.simulations.experiments.audited_release import costs_of
from consilium.simulations.experiments.epsilon_bounds import attack_epsilon, renyi_epsilon

MOST_ROUNDS = 16
CLEAR = 1.25  # an attack on this many times what one release costs tells a sum from its last part
UNBOUNDED = 1e6
TOLERANCE = 1e-3  # relative, of the accountant's numerical composition
FIRST_RUN, SECOND_RUN = bytes(32), bytes([1]) * 32


def ledger_findings(study: Study, folder: Path) -> tuple[Finding, ...]:
    """Return what a new ledger in ``folder`` says, against bounds that do not use our accountant.

    Args:
        study: as it would be approved.
        folder: where the ledger's file is made.
    """
    costs = costs_of(study)
    rounds = _rounds(costs, study)
    budget = study.privacy.epsilon
    spent = 0.0
    for number in range(rounds + 1):
        purpose = Purpose.TRAINING if number else Purpose.STATISTICS
        spent = _charge(_open(folder, study), study, purpose, number, FIRST_RUN, budget)
    found = [
        _finding(
            f"spent, statistics, {rounds} rounds", study, costs, spent, statistics=1, rounds=rounds
        )
    ]
    two_runs = renyi_epsilon(*_releases(costs, statistics=2, rounds=rounds), study.privacy.delta)
    if two_runs < budget:
        again = _charge(_open(folder, study), study, Purpose.STATISTICS, 0, SECOND_RUN, UNBOUNDED)
        found.append(
            _finding("spent, and a second run", study, costs, again, statistics=2, rounds=rounds)
        )
    found.append(_refusal(study, costs, folder, rounds))
    return tuple(found)


def _open(folder: Path, study: Study) -> Ledger:
    """Open the ledger as a site does when it starts."""
    return Ledger(folder / "ledger.sqlite", lifetime_epsilon=UNBOUNDED, delta=study.privacy.delta)


def _charge(
    ledger: Ledger, study: Study, purpose: Purpose, number: int, run: bytes, budget: float
) -> float:
    """Reserve and confirm what a round costs; return the study's epsilon as the ledger has it."""
    for release in round_charges(study, RoundConfiguration(purpose=purpose), number, run):
        ledger.reserve(release, study_epsilon=budget, study_delta=study.privacy.delta)
        ledger.confirm(release)
    return sum(account.account.spent for account in ledger.summary().studies)


def _finding(
    what: str, study: Study, costs: PrivacyPlan, spent: float, *, statistics: int, rounds: int
) -> Finding:
    releases = _releases(costs, statistics=statistics, rounds=rounds)
    delta = study.privacy.delta
    least, most = attack_epsilon(*releases, delta), renyi_epsilon(*releases, delta)
    of_last = epsilon_spent((costs.statistics if statistics > 1 else costs.training_round,), delta)
    return Finding(
        release="ledger",
        what=what,
        claimed=spent,
        measured=least,
        low=least,
        high=most,
        verdict=verdict(
            refuted=spent < least * (1 - TOLERANCE), powerful=of_last < least * (1 - TOLERANCE)
        ),
        convicts=f"an account below {least:.3g} (of the last release alone: {of_last:.3g})",
    )


def _refusal(study: Study, costs: PrivacyPlan, folder: Path, rounds: int) -> Finding:
    """Ask for one more round than a budget allows that the releases so far just fit."""
    delta = study.privacy.delta
    budget = attack_epsilon(*_releases(costs, statistics=1, rounds=rounds), delta)
    try:
        spent = _charge(
            _open(folder, study), study, Purpose.TRAINING, rounds + 1, FIRST_RUN, budget
        )
    except BudgetError:
        spent = 0.0
    return Finding(
        release="ledger",
        what="spent beyond its budget",
        claimed=0.0,
        measured=max(0.0, spent - budget),
        low=max(0.0, spent - budget),
        high=max(0.0, spent - budget),
        verdict=verdict(refuted=spent > 0, powerful=True),
        convicts="a round beyond the budget",
    )


def _rounds(costs: PrivacyPlan, study: Study) -> int:
    """Return how many rounds tell the cost of all releases from that of any one of them."""
    delta = study.privacy.delta
    dearest = max(
        epsilon_spent((event,), delta) for event in (costs.statistics, costs.training_round)
    )
    most = min(MOST_ROUNDS, study.rounds)
    for rounds in range(1, most):
        if attack_epsilon(*_releases(costs, statistics=1, rounds=rounds), delta) > CLEAR * dearest:
            return rounds
    return most


def _releases(
    costs: PrivacyPlan, *, statistics: int, rounds: int
) -> tuple[tuple[float, ...], tuple[float, float, int] | None]:
    event = costs.training_round
    sampled = (event.noise_multiplier, event.sampling_rate, event.steps * rounds)
    return (costs.statistics.noise_multiplier,) * statistics, sampled
