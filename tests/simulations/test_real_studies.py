"""Quick example studies on their real records, where these lie beside the repository."""

import csv
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from consilium.client.records.features import require_usable, to_grid
from consilium.shared.errors import DataError
from consilium.shared.study.definition import load_study, with_changes
from consilium.simulations.cohorts.partitions import is_test
from consilium.simulations.runs.compare import compare_settings
from tests.fixed_draws import fix_draws

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared" / "data"


@pytest.fixture(autouse=True)
def _the_same_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    fix_draws(monkeypatch)


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
    assert test["federated"]["auroc"] >= test["pooled"]["auroc"] - 0.01
    # 317 test patients: one standard error of an accuracy of 0.84 is 0.02.
    assert test["federated"]["accuracy"] >= test["pooled"]["accuracy"] - 0.02
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


@pytest.mark.slow
def test_of_186_hospitals_the_usual_minimum_refuses_all_and_a_minimum_of_five_allows_156() -> None:
    """Ten persons at most each: who may train is the list of sites of the study."""
    records = DATA / "eicu_demo"
    if not records.exists():
        pytest.skip("the records eicu_demo are not beside the repository")
    pytest.importorskip("polars")
    from consilium.client.sources.public.eicu_demo import EicuDemo

    study = load_study(ROOT / "studies" / "eicu-aki-hospitals.toml")
    everybody = list(EicuDemo(records).read_patients(study))
    with (records / "patient.csv").open(encoding="utf-8") as file:
        hospitals = sorted({int(row["hospitalid"]) for row in csv.DictReader(file)})
    allowed: dict[int, list[str]] = {20: [], 10: [], 5: []}
    for number in hospitals:
        there = EicuDemo(records, where={"hospitalid": float(number)}).persons()
        training = [
            replace(person, stays=stays)
            for person in everybody
            if (stays := tuple(s for s in person.stays if int(s.stay_id) in there))
            and not is_test(person.patient_id)
        ]
        for minimum, sites in allowed.items():
            with suppress(DataError):
                grid = to_grid(training, study)
                require_usable(grid, with_changes(study, data={"minimum_patients": minimum}))
                sites.append(f"hospital-{number}")
    assert len(hospitals) == 186
    assert {minimum: len(sites) for minimum, sites in allowed.items()} == {20: 0, 10: 15, 5: 156}
    assert tuple(allowed[5]) == study.sites
