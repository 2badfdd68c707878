"""With a lying coordinator and as many helpers as tolerated, no shipped study costs more."""

import math
from dataclasses import replace
from pathlib import Path

import dp_accounting
import numpy as np
import pytest
from dp_accounting.pld.pld_privacy_accountant import PLDAccountant

from consilium.shared.crypto.keystream import Keystream
from consilium.shared.errors import SettingsError, StudyError
from consilium.shared.model.normalisation import statistics_clip
from consilium.shared.model.study_model import study_model
from consilium.shared.model.weight_vector import parameter_count
from consilium.shared.privacy import shared_noise
from consilium.shared.privacy.accounting import plan
from consilium.shared.privacy.calibration import calibration_bound
from consilium.shared.privacy.shared_noise import calibration_share, noise_share, noisy_sum
from consilium.shared.rounds.contents import statistics_noise
from consilium.shared.study.definition import load_study, parse_study, with_changes
from consilium.simulations.experiments.worst_case import (
    BEGIN,
    END,
    worst_case,
    worst_cases_table,
    write_table,
)
from tests.study_text import TEXT

ROOT = Path(__file__).parents[3]
SHIPPED = [load_study(path) for path in sorted((ROOT / "studies").glob("*.toml"))]


@pytest.mark.sampled(4)
@pytest.mark.parametrize("study", SHIPPED, ids=lambda study: study.name)
def test_no_shipped_study_costs_more_in_the_worst_case_than_it_claims(study) -> None:
    case = worst_case(study)
    assert case.holds
    assert case.worst <= study.privacy.epsilon * 1.001
    assert case.worst >= 0.98 * study.privacy.epsilon  # the noise is not wasted either
    assert max(case.statistics, case.round) < case.training


@pytest.mark.parametrize("mode", ["site", "distributed"])
def test_evaluations_with_attributions_are_within_the_claim_too(mode) -> None:
    study = with_changes(
        parse_study(TEXT),
        privacy={"mode": mode},
        training={"local_steps": 1},
        evaluation={"validation_fraction": 0.3, "explained_patients": 20, "every": 3, "passes": 2},
    )
    case = worst_case(study)
    assert case.holds
    assert case.evaluation < case.validation
    assert 0.98 * study.privacy.epsilon <= case.validation <= study.privacy.epsilon * 1.001


def test_a_count_of_persons_costs_what_it_claims_and_both_kinds_of_patients_pay_for_it() -> None:
    study = with_changes(
        parse_study(f"{TEXT}\n[feasibility]\nepsilon = 2.0\n"),
        evaluation={"validation_fraction": 0.3},
    )
    case = worst_case(study)
    assert case.holds
    assert case.feasibility == pytest.approx(2.0, rel=1e-3)
    assert case.training == pytest.approx(study.privacy.epsilon, rel=1e-3)
    assert case.validation == pytest.approx(study.privacy.epsilon, rel=1e-3)
    assert "ε claimed | counting | statistics" in worst_cases_table([case])
    assert "counting" not in worst_cases_table([replace(case, feasibility=None)])


@pytest.mark.slow
def test_another_accountant_agrees_on_the_worst_case_of_a_shipped_study() -> None:
    """Google's, given the noise of M - c shares and one patient's part of each sum."""
    study = next(study for study in SHIPPED if study.name == "demo")
    parameters = parameter_count(study_model(study))
    share = noise_share(study, parameters)
    honest = study.minimum_sites - study.aggregation.tolerated_collusion
    part = share.scale * study.privacy.clip_norm + math.sqrt(parameters)
    step = dp_accounting.PoissonSampledDpEvent(
        study.training.sampling_rate,
        dp_accounting.GaussianDpEvent(math.sqrt(honest * share.variance) / part),
    )
    accountant = PLDAccountant(dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE)
    accountant.compose(step, study.rounds)
    clip = statistics_clip(study)
    accountant.compose(dp_accounting.GaussianDpEvent(statistics_noise(study) / clip))
    shared = calibration_share(study)
    one = shared.scale * calibration_bound(study) + math.sqrt(shared.segment.length)
    calibration = dp_accounting.GaussianDpEvent(math.sqrt(honest * shared.variance) / one)
    accountant.compose(calibration, study.calibration_rounds)
    epsilon = accountant.get_epsilon(study.privacy.delta)
    assert worst_case(study).training == pytest.approx(epsilon, rel=5e-3)


def test_the_table_of_the_privacy_page_is_what_the_command_makes() -> None:
    page = (ROOT / "docs/privacy.md").read_text(encoding="utf-8")
    shown = page.split(BEGIN)[1].split(END)[0].strip()
    assert shown == worst_cases_table([worst_case(study) for study in SHIPPED])


def test_a_study_that_counts_the_noise_of_colluding_sites_is_convicted(monkeypatch) -> None:
    """Noise calibrated for all M survivors is too little when c of them add none."""
    study = with_changes(
        parse_study(TEXT), privacy={"mode": "distributed"}, training={"local_steps": 1}
    )
    honest = study.minimum_sites - study.aggregation.tolerated_collusion
    assert study.aggregation.tolerated_collusion > 0

    def counting_all(study, parameters):
        share = noise_share(study, parameters)
        less = math.ceil(share.variance * honest / study.minimum_sites)
        return replace(share, variance=less, honest=study.minimum_sites)

    assert worst_case(study).holds
    monkeypatch.setattr("consilium.simulations.experiments.worst_case.noise_share", counting_all)
    assert not worst_case(study).holds


def test_statistics_with_half_their_noise_are_convicted(monkeypatch) -> None:
    study = with_changes(parse_study(TEXT), privacy={"mode": "site"})
    real = worst_case(study)
    monkeypatch.setattr(
        "consilium.simulations.experiments.worst_case.statistics_noise",
        lambda study: plan(study).statistics.noise_multiplier,  # without the clip norm
    )
    assert worst_case(study).statistics > real.statistics
    assert not worst_case(study).holds


def test_the_share_that_is_counted_is_the_share_that_a_site_draws() -> None:
    study = with_changes(
        parse_study(TEXT), privacy={"mode": "distributed"}, training={"local_steps": 1}
    )
    share = noise_share(study, 20_000)
    drawn = noisy_sum(np.zeros(20_000), share, Keystream(bytes(32)))
    assert drawn.var() == pytest.approx(share.variance, rel=0.05)
    assert share.variance > shared_noise.CONVOLUTION_VARIANCE


def test_a_study_without_privacy_claims_nothing() -> None:
    with pytest.raises(StudyError, match="claims nothing"):
        worst_case(with_changes(parse_study(TEXT), privacy={"mode": "none"}))


def test_the_table_replaces_what_stood_between_the_marks_and_nothing_else(tmp_path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    write_table(page, "| new |")
    assert page.read_text() == f"before\n{BEGIN}\n| new |\n{END}\nafter\n"
    page.write_text("no marks")
    with pytest.raises(SettingsError, match="lacks the lines"):
        write_table(page, "| new |")
    with pytest.raises(SettingsError, match="cannot be read"):
        write_table(tmp_path / "absent.md", "| new |")
