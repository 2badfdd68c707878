"""A planted failure in a subgroup and a planted miscalibrated hospital are plain to see."""

import json
from pathlib import Path

import numpy as np
import pytest

from consilium.shared.study.definition import Study, load_study, with_changes
from consilium.simulations.cohorts.hospitals import FLAWED_HOSPITAL, FLAWED_NAME, SOURCE_NAME
from consilium.simulations.runs.simulate import simulate

ROOT = Path(__file__).parents[3]


def study_of(source: str, rounds: int) -> Study:
    return with_changes(
        load_study(ROOT / "studies" / "demo.toml"),
        study={"rounds": rounds, "seed": 2},
        data={"source": source},
        privacy={"mode": "none"},
        evaluation={"validation_fraction": 0.2, "per_site": True, "every": 20},
    )


def record_of(study: Study, folder: Path) -> dict:
    simulate(study, None, folder, workers=2, show=lambda _: None)
    return json.loads((folder / "run.json").read_text(encoding="utf-8"))


@pytest.mark.slow
def test_the_summary_names_the_planted_subgroup_and_the_planted_hospital(tmp_path: Path) -> None:
    study = study_of(FLAWED_NAME, 40)
    record = record_of(study, tmp_path)
    hospital = study.sites[FLAWED_HOSPITAL]
    for told in (record, record["other_rounds"][-1]["validation"]):
        serious = [(v["topic"], v["name"]) for v in told["verdicts"] if v["serious"]]
        assert ("discrimination", "male") in serious
        assert ("calibration", hospital) in serious
    joined = record["joining"]
    assert [site["site"] for site in joined["sites"]] == list(study.sites)
    sizes = {group["name"]: group["patients"] for group in record["groups"]}
    for site in joined["sites"]:
        assert site["patients"] == sizes[site["tested_on"]]
        difference = site["federated"]["value"] - site["local"]["value"]
        assert site["gain"]["value"] == pytest.approx(difference)
        own = record["test_groups"][site["site"]]["auroc"]["value"]
        assert site["federated"]["value"] == pytest.approx(own)
    check_recalibration(study, record, tmp_path)
    told = [v for v in record["verdicts"] if v["topic"] != "joining"]
    first, second, *others = told
    assert "worse in the group male: AUROC 0." in first["sentence"]
    assert f"Risks are too low at {hospital}: " in second["sentence"]
    assert not any(v["serious"] for v in others)


def check_recalibration(study: Study, record: dict, folder: Path) -> None:
    """The planted hospital is mended by its own validation patients, and the report says so."""
    hospital, mended = study.sites[FLAWED_HOSPITAL], record["recalibration"]
    assert mended["across"] == [{"slope": 1.0, "intercept": 0.0}]  # on the whole nothing is wrong
    assert [v["name"] for v in mended["verdicts"]["across"]] == [hospital]
    assert mended["verdicts"]["own"] == []
    ratios = {group["name"]: group for group in mended["groups"]}
    told = {group["name"]: group for group in record["groups"]}
    assert ratios[hospital]["before"] == told[hospital]["calibration"]
    assert ratios[hospital]["before"]["low"] > 1.5
    assert ratios[hospital]["own"]["low"] < 1 < ratios[hospital]["own"]["high"]
    fitted = {site["site"]: site for site in mended["sites"]}
    # a fifth of the training records, and none of those tested on
    assert fitted[hospital]["patients"] == pytest.approx(
        0.2 * record["data"][hospital]["patients"], rel=0.3
    )
    assert fitted[hospital]["fitted"][0]["intercept"] > 0.5
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "by its own validation patients, 0 findings on calibration remain; before: 1." in page


@pytest.mark.slow
def test_without_flaws_the_summary_accuses_nobody(tmp_path: Path) -> None:
    record = record_of(study_of(SOURCE_NAME, 40), tmp_path)
    serious = [v for v in record["verdicts"] if v["serious"] and v["topic"] != "joining"]
    assert not serious
    groups = {group["name"]: group for group in record["groups"]}
    for name, figures in record["test_groups"].items():
        assert groups[name]["figures"]["auroc"]["value"] == figures["auroc"]["value"]
        rows = np.fromstring(groups[name]["negatives"], sep=" ")
        positives = np.fromstring(groups[name]["positives_by_bin"], sep=" ")
        assert rows.sum() + positives.sum() == groups[name]["rows"] == figures["rows"]
        assert len(rows) == len(record["bins"].split()) + 1
    assert {"male", "female", "Age below 50", "all"} <= set(groups)
    assert record["data"]["hospital-1"]["patients"] > 0
