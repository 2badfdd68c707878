"""Quick example studies on their real records, where these lie beside the repository."""

from pathlib import Path
from typing import Any

import pytest

from shared.study import load_study
from simulations.compare import compare_settings

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared" / "data"


def compared(name: str, folder: str, out: Path) -> dict[str, Any]:
    """The test figures of every setting of one study, by setting and figure."""
    records = DATA / folder
    if not records.exists():
        pytest.skip(f"the records {folder} are not beside the repository")
    study = load_study(ROOT / "studies" / f"{name}.toml")
    settings = compare_settings(
        study,
        records,
        out,
        epsilons=[study.privacy.epsilon],
        workers=2,
        watch=lambda *_: lambda _: None,
    )
    assert settings["federated-private"]["privacy"]["epsilon"] <= study.privacy.epsilon
    return {
        setting: {name: f["value"] for name, f in record["test"].items() if isinstance(f, dict)}
        for setting, record in settings.items()
    }


@pytest.mark.slow
def test_four_hospitals_together_reach_pooled_accuracy_and_beat_each_alone(tmp_path: Path) -> None:
    test = compared("heart-disease", "heart_disease", tmp_path)
    assert test["federated"]["accuracy"] >= 0.98 * test["pooled"]["accuracy"]
    assert test["federated"]["auroc"] > test["local"]["auroc"] + 0.03
    assert test["federated-private"]["auroc"] > test["local"]["auroc"]


@pytest.mark.slow
def test_slices_of_volumes_are_learned_as_well_together_as_pooled(tmp_path: Path) -> None:
    test = compared("adrenal-slices", "medmnist_adrenal3d", tmp_path)
    assert test["federated"]["auroc"] >= test["pooled"]["auroc"] - 0.02
    assert test["federated"]["auroc"] > test["local"]["auroc"]


@pytest.mark.slow
def test_molecules_are_told_apart_better_together_than_alone(tmp_path: Path) -> None:
    test = compared("bbbp", "molecules", tmp_path)
    assert test["federated"]["auroc"] >= test["pooled"]["auroc"] - 0.02
    assert test["federated"]["auroc"] > test["local"]["auroc"]
    assert test["federated-private"]["auroc"] > 0.85
