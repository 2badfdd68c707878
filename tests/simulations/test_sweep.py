"""A sweep runs each setting once, and only what is missing."""

import json
from importlib.util import find_spec

import pytest

from consilium.shared.errors import SettingsError
from consilium.simulations.federation.ray_cluster import Cluster
from consilium.simulations.runs import sweep as sweeping
from consilium.simulations.runs.sweep import sweep, sweep_settings
from tests.simulations.federation.test_flower_engine import small_study

TINY = {"rounds": 1, "sites": ["north", "east", "south"]}


def watch_nothing(setting, study):
    return lambda record: None


def swept(study, out, **options):
    return sweep(study, None, out, workers=2, watch=watch_nothing, **options)


def test_each_seed_meets_each_budget():
    private = small_study(privacy={"mode": "site"})
    found = sweep_settings(private, [1, 2], [3.0, 0.5])
    assert list(found) == [
        "seed-1-epsilon-3", "seed-1-epsilon-0.5", "seed-2-epsilon-3", "seed-2-epsilon-0.5"
    ]  # fmt: skip
    assert {(one.seed, one.privacy.epsilon) for one in found.values()} == {
        (1, 3.0), (1, 0.5), (2, 3.0), (2, 0.5)
    }  # fmt: skip


def test_a_budget_for_a_study_without_privacy_is_refused():
    with pytest.raises(SettingsError, match="--epsilon has no use without privacy"):
        sweep_settings(small_study(), None, [3.0])


def test_a_finished_setting_is_never_run_again_and_a_missing_one_is(tmp_path, monkeypatch):
    ran = []

    def simulate(study, cohorts, out, **_):
        ran.append((study.seed, out.name))
        out.mkdir(parents=True)
        record = {"study_digest": study.digest.hex(), "privacy": {"epsilon": None}, "seconds": 1.0,
                  "test": {"auroc": {"value": 0.5, "low": 0.4, "high": 0.6}}}  # fmt: skip
        if study.seed == 3 and len(ran) < 4:
            raise SettingsError("a full disk")
        (out / "run.json").write_text(json.dumps(record))

    monkeypatch.setattr(sweeping, "simulate", simulate)
    study = small_study()
    with pytest.raises(SettingsError, match="1 of 3 settings failed, seed-3 first: a full disk"):
        swept(study, tmp_path, seeds=[1, 3, 2], epsilons=None)
    assert ran == [(1, "seed-1"), (3, "seed-3"), (2, "seed-2")]
    (tmp_path / "seed-3").rmdir()
    assert list(swept(study, tmp_path, seeds=[1, 3, 2], epsilons=None)) == [
        "seed-1", "seed-3", "seed-2"
    ]  # fmt: skip
    assert ran[3:] == [(3, "seed-3")]
    assert set(json.loads((tmp_path / "sweep.json").read_text())["settings"]) == {
        "seed-1", "seed-2", "seed-3"
    }  # fmt: skip
    with pytest.raises(SettingsError, match="holds a run of another study"):
        swept(small_study(model={"hidden": 5}), tmp_path, seeds=[1], epsilons=None)


@pytest.mark.slow
@pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed")
def test_settings_that_run_as_tasks_of_ray_give_what_they_give_here(tmp_path):
    study = small_study(study=TINY)
    here = swept(study, tmp_path / "here", seeds=[1, 2], epsilons=None)
    there = swept(study, tmp_path / "there", seeds=[1, 2], epsilons=None, cluster=Cluster(None))
    assert {name: one["test"] for name, one in there.items()} == {
        name: one["test"] for name, one in here.items()
    }
    written = {name: (tmp_path / "there" / name / "run.json").stat().st_mtime_ns for name in there}
    again = swept(study, tmp_path / "there", seeds=[1, 2, 3], epsilons=None, cluster=Cluster(None))
    assert set(again) - set(there) == {"seed-3"}
    for name, when in written.items():
        assert (tmp_path / "there" / name / "run.json").stat().st_mtime_ns == when
