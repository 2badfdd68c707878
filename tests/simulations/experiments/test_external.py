"""A hospital left out is one the model has never seen, and what is said of it follows from that."""

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from consilium.shared.errors import SettingsError, StudyError
from consilium.shared.study.definition import Study, load_study, with_changes
from consilium.simulations.cli import app
from consilium.simulations.cohorts.cohorts import Cohorts
from consilium.simulations.cohorts.study_cohorts import cohorts_for
from consilium.simulations.experiments.external import external_sentences, failures, leave_one_out
from consilium.simulations.figures.held_out import HeldOut
from consilium.simulations.runs.simulate import simulate
from tests.fixed_draws import fix_draws

pytestmark = pytest.mark.slow  # a model for each hospital left out
ROOT = Path(__file__).parents[3]
DATA = ROOT.parent / "shared" / "data" / "heart_disease"
DEMO = load_study(ROOT / "studies" / "demo.toml")
STUDY = with_changes(
    DEMO,
    study={"rounds": 2, "sites": list(DEMO.sites[:4])},
    aggregation={"minimum_sites": 4},
    model={"hidden": 4},
)


def quiet(_: str, study: Study):
    return lambda record: None


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> dict:
    out = tmp_path_factory.mktemp("run") / "out"
    simulate(STUDY, None, out, workers=2, show=lambda _: None, outside=quiet)
    return json.loads((out / "run.json").read_text()) | {"out": str(out)}


def test_every_hospital_is_left_out_once_and_judged_on_its_own_patients(record: dict) -> None:
    found = record["external"]
    assert [site["site"] for site in found["sites"]] == list(STUDY.sites)
    joined = {site["site"]: site for site in record["joining"]["sites"]}
    for site in found["sites"]:
        name = site["site"]
        assert site["trained_on"] == [other for other in STUDY.sites if other != name]
        assert site["local"] == joined[name]["local"]
        assert site["federated"]["value"] == record["test_groups"][name]["auroc"]["value"]
        assert site["patients"] == record["test_groups"][name]["patients"]
        assert site["gain"]["value"] == pytest.approx(
            site["federated"]["value"] - site["external"]["value"]
        )
        assert site["external"] != site["federated"]


def test_the_left_out_hospital_has_no_part_in_its_model(record: dict) -> None:
    for name in STUDY.sites:
        took_part = Path(record["out"]) / "external" / name / "sites"
        assert {folder.name for folder in took_part.iterdir()} == set(STUDY.sites) - {name}


@pytest.mark.slow
def test_what_was_finished_is_not_trained_again(record: dict, tmp_path: Path) -> None:
    shutil.copytree(record["out"], tmp_path / "out")
    seen: list[str] = []

    def watch(setting: str, study: Study):
        seen.append(setting)
        return lambda _: None

    again = simulate(STUDY, None, tmp_path / "out", workers=2, show=lambda _: None, outside=watch)
    assert json.loads(json.dumps(again["external"])) == record["external"]
    assert seen == [f"without {site}" for site in STUDY.sites]


def test_too_few_sites_or_patients_of_one_crowd_are_refused_before_training(tmp_path: Path) -> None:
    three = with_changes(STUDY, study={"sites": STUDY.sites[:3]}, aggregation={"minimum_sites": 3})
    with pytest.raises(StudyError, match="without hospital-1 it has 2 sites, and a secure sum"):
        simulate(three, None, tmp_path / "a", workers=1, show=lambda _: None, outside=quiet)
    cohorts = cohorts_for(STUDY, None)
    crowd = {"all": cohorts.test[STUDY.sites[0]]}
    together = Cohorts(sites=cohorts.sites, test=crowd, described="all")
    with pytest.raises(SettingsError, match="not told apart by hospital"):
        leave_one_out(STUDY, together, HeldOut.read(crowd, STUDY))
    assert not (tmp_path / "a" / "external").exists()


def test_groups_and_bounds_that_fit_no_more_are_the_usual_ones() -> None:
    nine = with_changes(
        DEMO,
        study={"sites": [f"s{n}" for n in range(9)]},
        aggregation={"groups": 3, "minimum_sites": 3, "threshold": 3, "neighbours": 2},
    )
    sources = dict.fromkeys(nine.sites)
    fewer = leave_one_out(
        nine,
        Cohorts(sites=sources, test=sources, described=""),
        type("Test", (), {"groups": nine.sites})(),
    )
    assert [len(study.sites) for study in fewer.values()] == [8] * 9
    assert fewer["s0"].aggregation.groups == 1
    assert fewer["s0"].minimum_sites == 6


def found(**site: object) -> dict:
    fine = {"value": 0.8, "low": 0.7, "high": 0.9}
    return {
        "figure": "auroc",
        "sites": [
            {
                "site": "north",
                "judged": True,
                "external": fine,
                "federated": fine,
                "gain": {"value": 0.0, "low": -0.1, "high": 0.1},
                "calibration": {"value": 1.0, "low": 0.8, "high": 1.2},
                **site,
            }
        ],
    }


def test_a_failure_is_beyond_chance_and_of_a_hospital_with_patients_enough() -> None:
    assert list(failures(found())) == []
    worse = {"value": 0.1, "low": 0.02, "high": 0.2}
    assert "At north a model that never saw it is worse: AUROC 0.80" in next(
        failures(found(gain=worse))
    )
    high = {"value": 0.6, "low": 0.5, "high": 0.72}
    assert "too high: 0.60 outcomes for each one predicted (0.50 to 0.72)" in next(
        failures(found(calibration=high))
    )
    unsure = {"value": 0.6, "low": 0.3, "high": 1.1}
    assert list(failures(found(calibration=unsure))) == []
    few = found(gain=worse, judged=False)
    assert list(failures(few)) == []
    assert external_sentences(few) == ("Not judged, too few patients: north.",)


@pytest.mark.slow
@pytest.mark.skipif(not DATA.is_dir(), reason="the heart disease records are not here")
def test_heart_disease_is_told_apart_at_unseen_hospitals_but_its_risks_do_not_travel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fix_draws(monkeypatch)
    arguments = ["run", ROOT / "studies" / "heart-disease.toml", "--data", DATA, "--external"]
    out = tmp_path / "out"
    result = CliRunner().invoke(app, [*map(str, arguments), "--out", str(out), "--workers", "2"])
    assert result.exit_code == 0, result.output
    assert "never saw it" in result.output
    sites = {s["site"]: s for s in json.loads((out / "run.json").read_text())["external"]["sites"]}
    assert not sites["switzerland"]["judged"]  # three patients without the disease
    for name in ("cleveland", "hungarian"):
        assert sites[name]["external"]["low"] > 0.8
    # with other draws of the noise 0.88 to 0.94; Cleveland's reaches 1.07
    assert sites["hungarian"]["calibration"]["high"] < 0.95
    page = (out / "report.html").read_text()
    assert "<figure id='external'" in page
    assert "At hospitals it did not learn from its AUROC is" in page
