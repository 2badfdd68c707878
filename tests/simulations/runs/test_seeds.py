"""Means over seeds: their intervals hold both what patients and what seeds do."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import t as student

from consilium.shared.errors import StudyError
from consilium.shared.study.definition import with_changes
from consilium.simulations.runs.compare import private_settings
from consilium.simulations.runs.seeds import compare_over_seeds, summarise
from tests.study_text import small_study


def record(value: float, epsilon: float | None = None) -> dict:
    return {
        "privacy": {"mode": "none" if epsilon is None else "site", "epsilon": epsilon},
        "seconds": 2.0,
        "test": {
            "auroc": {"value": value, "low": value - 0.02, "high": value + 0.02},
            "patients": 10,
        },
    }


def test_a_mean_has_the_seeds_spread_and_the_patients_interval_around_it() -> None:
    values = (0.80, 0.82, 0.87)
    runs = [{"pooled": record(0.9), "private": record(value, 3.0)} for value in values]
    found = summarise(runs)
    auroc = found["private"]["test"]["auroc"]
    error = np.std(values, ddof=1) / 3**0.5
    half = np.hypot(0.02, student.ppf(0.975, 2) * error)
    assert auroc["value"] == pytest.approx(0.83)
    assert auroc["high"] - auroc["value"] == pytest.approx(half)
    assert auroc["value"] - auroc["low"] == pytest.approx(half)
    assert auroc["by_seed"] == list(values)
    assert found["private"]["kept"] == pytest.approx(0.83 / 0.9)
    assert found["pooled"]["test"]["auroc"]["low"] == pytest.approx(0.88)
    assert (found["pooled"]["kept"], found["private"]["epsilon"]) == (1.0, 3.0)


def test_one_seed_has_the_patients_interval_alone() -> None:
    auroc = summarise([{"pooled": record(0.9)}])["pooled"]["test"]["auroc"]
    assert (auroc["low"], auroc["high"]) == pytest.approx((0.88, 0.92))


def test_modes_stand_beside_each_other_at_each_epsilon() -> None:
    study = small_study(
        privacy={"mode": "distributed", "epsilon": 8.0}, training={"local_steps": 1}
    )
    found = private_settings(study, None, ["distributed", "site"])
    assert {name: (s.privacy.mode, s.privacy.epsilon) for name, s in found.items()} == {
        "federated-private": ("distributed", 8.0),
        "federated-private-site": ("site", 8.0),
        "federated-private-epsilon-3": ("distributed", 3.0),
        "federated-private-site-epsilon-3": ("site", 3.0),
        "federated-private-epsilon-1": ("distributed", 1.0),
        "federated-private-site-epsilon-1": ("site", 1.0),
    }
    assert list(private_settings(study, [2.0], None)) == ["federated-private"]
    several = with_changes(study, privacy={"mode": "site"}, training={"local_steps": 5})
    with pytest.raises(StudyError, match="local_steps 5 must be 1"):
        private_settings(several, None, ["distributed"])
    plain = with_changes(several, privacy={"mode": "none"})
    assert private_settings(plain, [2.0], None)["federated-private"].privacy.mode == "site"


def test_every_seed_gives_a_whole_comparison_and_the_summary_its_means(tmp_path: Path) -> None:
    asked = []

    def compare(study, out):
        asked.append((study.seed, out.name))
        at_north = {"auroc": {"value": 0.7 + study.seed / 10, "low": 0.0, "high": 1.0}}
        told = record(0.8 + study.seed / 100) | {"test_groups": {"north": at_north}}
        return {"pooled": told}

    study = with_changes(small_study(), study={"seed": 1})
    summary = compare_over_seeds(study, tmp_path, seeds=2, compare=compare)
    assert asked == [(1, "seed-1"), (2, "seed-2")]
    assert summary["seeds"] == [1, 2]
    pooled = summary["settings"]["pooled"]
    assert pooled["test"]["auroc"]["value"] == pytest.approx(0.815)
    assert pooled["test_groups"]["north"]["auroc"]["value"] == pytest.approx(0.85)
    assert json.loads((tmp_path / "seeds.json").read_text()) == summary


def test_a_difference_to_a_rival_is_a_mean_over_seeds_too() -> None:
    gains = [{"auroc": {"value": value, "low": value - 0.02, "high": value + 0.02}}
             for value in (0.01, 0.03)]  # fmt: skip
    runs = [{"pooled": record(0.9) | {"against": {"gradient-boosting": gain}}} for gain in gains]
    found = summarise(runs)["pooled"]["against"]["gradient-boosting"]["auroc"]
    assert found["value"] == pytest.approx(0.02)
    assert found["low"] < 0 < found["high"]  # the seeds' spread counts beside the patients'
    assert summarise([{"pooled": record(0.9)}])["pooled"]["against"] == {}
