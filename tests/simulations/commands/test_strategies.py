"""Strategies change what they say and nothing else, and one table compares them."""

import json
from pathlib import Path

import pytest

from consilium.shared.errors import StudyError
from consilium.shared.study.definition import Study, load_study, parse_study, with_changes
from consilium.simulations.commands.strategies import STRATEGIES, compare_strategies, with_strategy
from consilium.simulations.report.files import write_report
from tests.study_text import small_study

ROOT = Path(__file__).parents[3]
HEART = ROOT.parent / "shared" / "data" / "heart_disease"
STUDY = small_study(model={"layer_norm": True}, privacy={"mode": "none"})


@pytest.mark.parametrize("name", STRATEGIES)
def test_each_strategy_makes_a_study_of_its_own_and_keeps_the_rest(name: str) -> None:
    found = with_strategy(STUDY, name)
    kept = found.model_dump(exclude={"aggregation", "training", "personalisation"})
    assert kept == STUDY.model_dump(exclude={"aggregation", "training", "personalisation"})
    assert (found.digest == STUDY.digest) == (name in ("study", "fedavg"))


def test_strategies_are_joined_and_take_a_number() -> None:
    assert with_strategy(STUDY, "ditto=2+inputs").personalisation.ditto.pull == 2
    found = with_strategy(STUDY, "fedadam+norm+fedprox=0.5+head")
    assert found.aggregation.strategy == "fedadam"
    assert found.training.proximal == 0.5
    assert found.personalisation.parts == ("norm", "head")


def test_a_server_step_that_the_study_has_keeps_its_rates() -> None:
    tuned = with_changes(
        STUDY, aggregation={"strategy": "fedadam", "server_learning_rate": 0.007, "momentum": 0.5}
    )
    assert with_strategy(tuned, "fedadam").aggregation == tuned.aggregation
    assert with_strategy(tuned, "fedyogi").aggregation.server_learning_rate == 0.03


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("fedsgd", "there is no strategy 'fedsgd'; choose among study, fedavg, fedavgm"),
        ("head=2", "'head=2': a number goes with fedprox and ditto alone"),
        ("fedprox=much", "'fedprox=much': a number goes with fedprox"),
        ("ditto=10", "pull 10 times learning_rate 0.1 must be below 1"),
        ("ditto+head", 'parts names "head", a part of the shared one; keep one of the two'),
        ("fedprox=-1", "must be at least 0"),
        ("head+head", "must not hold an entry twice"),
    ],
)
def test_what_is_no_strategy_is_told_in_one_sentence(name: str, sentence: str) -> None:
    with pytest.raises(StudyError) as told:
        with_strategy(STUDY, name)
    assert sentence in str(told.value)
    assert "\n" not in str(told.value)


TINY = """
name = "tiny"
title = "Tiny"
rounds = 1
sites = ["hospital-1", "hospital-2", "hospital-3"]
[data]
source = "synthetic-icu"
label = "In-hospital_death"
window_h = 4
minimum_patients = 5
[model]
hidden = 4
[training]
local_steps = 2
[privacy]
mode = "none"
[variables]
HR = { unit = "/min", low = 10, high = 300, center = 85, spread = 18 }
Age = { unit = "a", low = 15, high = 120, center = 64, spread = 17, role = "static" }
"""


def compared(
    study: Study, data: Path | None, out: Path, strategies: list[str], modes: list[str]
) -> tuple[dict, dict]:
    return compare_strategies(
        study,
        data,
        out,
        strategies=strategies,
        modes=modes,
        workers=2,
        watch=lambda *_: lambda _: None,
    )


@pytest.mark.slow
def test_the_table_has_local_pooled_and_every_strategy_in_each_mode_that_it_fits(
    tmp_path: Path,
) -> None:
    study = parse_study(TINY)
    found, refused = compared(study, None, tmp_path, ["fedavg", "norm", "head"], ["none", "site"])
    assert list(found) == ["local", "pooled", "fedavg", "fedavg, site", "head", "head, site"]
    assert set(refused) == {"norm", "norm, site"}
    assert "set [model] layer_norm = true" in refused["norm"]
    for name, record in found.items():
        assert set(record["test_groups"]) == set(study.sites), name
        assert (record["privacy"]["epsilon"] is None) == ("site" not in name), name
    sent = {name: record["bytes_up_per_site_per_round"] for name, record in found.items()}
    assert sent["local"] == sent["pooled"] == 0
    assert sent["fedavg"] - sent["head"] == 4 * (4 + 1)  # the head's weights and bias
    written = json.loads((tmp_path / "strategies.json").read_text())
    assert list(written["settings"]) == list(found)
    assert written["refused"] == refused
    page = tmp_path / "report.html"
    made = page.read_bytes()
    assert b"norm, site: " in made
    write_report(tmp_path)
    assert page.read_bytes() == made


def test_an_unknown_strategy_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="there is no strategy 'fedsgd'"):
        compared(parse_study(TINY), None, tmp_path / "out", ["fedavg", "fedsgd"], ["none"])
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_own_parts_help_four_hospitals_that_differ(tmp_path: Path) -> None:
    if not HEART.exists():
        pytest.skip("the records heart_disease are not beside the repository")
    study = load_study(ROOT / "studies" / "heart-disease-strategies.toml")
    found, _ = compared(study, HEART, tmp_path, ["fedavg", "head", "norm"], ["none"])
    auroc = {name: record["test"]["auroc"]["value"] for name, record in found.items()}
    brier = {name: record["test"]["brier"]["value"] for name, record in found.items()}
    for own in ("head", "norm"):
        assert auroc[own] > max(auroc["fedavg"], auroc["local"])
        assert brier[own] < min(brier["fedavg"], brier["local"])
