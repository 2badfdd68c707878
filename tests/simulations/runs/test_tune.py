"""A search never reads the test, never runs what is finished, and writes what it chose."""

import json
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner

import consilium
from consilium.shared.study.definition import with_changes
from consilium.simulations.cli import app
from consilium.simulations.runs import tune as tuning
from tests.simulations.api.small_hospitals import Ward, study
from tests.simulations.cohorts.test_folds import Trap

SPACE = {"model": {"hidden": [2, 3]}, "training": {"learning_rate": {"low": 0.01, "high": 0.5}}}
ONE = with_changes(study(), evaluation={"validation_fraction": 0.0})


def records() -> consilium.Records:
    wards = {site: Ward(number, 12) for number, site in enumerate(ONE.sites)}
    return consilium.Records(sites=wards, test=Trap())


def search(out: Path, *, runs: int = 4, **options) -> consilium.Tuning:
    return consilium.tune(
        ONE, records(), runs=runs, folds=2, space=SPACE, out=out, workers=1, **options
    )


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> consilium.Tuning:
    """A search that was cut off after its second run, then after its third, and went on."""
    out = tmp_path_factory.mktemp("tuned") / "out"
    finished = []

    def cut_off_after(number: int):
        def progress(trial: consilium.Trial, fold: int) -> None:
            if (2 * trial.number + fold - 2) == number:
                raise KeyboardInterrupt

        return progress

    with pytest.MonkeyPatch.context() as patch:
        whole = tuning.train

        def train(one, cohorts, test, folder, **options):
            finished.append(folder.name)
            return whole(one, cohorts, test, folder, **options)

        patch.setattr(tuning, "train", train)
        for number in (2, 3):
            with pytest.raises(KeyboardInterrupt):
                search(out, progress=cut_off_after(number))
        result = search(out)
    assert finished == ["1-1", "1-2", "2-1", "2-2"]  # each once
    return result


def test_what_was_tried_is_judged_on_folds_and_priced(found: consilium.Tuning) -> None:
    own, other = found.trials
    assert (own.number, own.changes, found.figure) == (1, {}, "auroc")
    assert other.changes
    for trial in found.trials:
        assert len(trial.by_fold) == 2
        assert trial.mean == pytest.approx(sum(trial.by_fold) / 2)
        assert trial.epsilon_if_private > found.price.run
        assert trial.failed is None
    assert own.gain == 0
    assert found.price.composed > found.price.run
    assert found.number in (1, 2)
    assert "settings" in found.why
    assert found.table().height == 2
    assert isinstance(found.table(), pl.DataFrame)
    with pytest.raises(AttributeError):
        found.number = 3  # type: ignore[misc]


def test_it_opens_again_and_wrote_the_study_that_was_chosen(found: consilium.Tuning) -> None:
    again = consilium.open_tuning(found.folder)
    assert again.trials == found.trials
    assert consilium.load_study(found.file) == found.chosen
    changes = found.trials[found.number - 1].changes
    assert (found.chosen == ONE) == (not changes)
    assert {path.name for path in found.folder.iterdir()} == {".lock", "tune.json", "study.toml"}


def test_a_search_is_not_mixed_with_another(found: consilium.Tuning) -> None:
    before = (found.folder / "tune.json").read_bytes()
    with pytest.raises(consilium.SettingsError, match=r"holds a search of another kind.*seed"):
        search(found.folder, seed=77)
    assert (found.folder / "tune.json").read_bytes() == before


def test_a_longer_search_is_not_cut_short(found: consilium.Tuning, tmp_path: Path) -> None:
    record = json.loads((found.folder / "tune.json").read_text())
    record["tried"].append(record["tried"][1] | {"study_digest": "ab" * 32})
    (tmp_path / "tune.json").write_text(json.dumps(record))
    with pytest.raises(consilium.SettingsError, match="of 3 settings, and runs 4 are for 2"):
        search(tmp_path)


def test_a_budget_for_less_than_two_settings_is_refused(tmp_path: Path) -> None:
    with pytest.raises(consilium.SettingsError, match="runs 3: a setting takes one run in each"):
        search(tmp_path / "out", runs=3)
    assert not (tmp_path / "out").exists()


def test_a_folder_without_a_finished_search_is_refused(tmp_path: Path) -> None:
    with pytest.raises(consilium.SettingsError, match=r"tune\.json: cannot be read"):
        consilium.open_tuning(tmp_path)
    (tmp_path / "tune.json").write_text("[]")
    with pytest.raises(consilium.SettingsError, match="no search's record, or a damaged one"):
        search(tmp_path)


@pytest.mark.slow
def test_a_setting_that_cannot_be_run_is_noted_and_the_rest_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = tuning.train

    def train(one, cohorts, test, folder, **options):
        if one.model.hidden == 3:
            raise consilium.ProtocolError("it diverged")
        return whole(one, cohorts, test, folder, **options)

    monkeypatch.setattr(tuning, "train", train)
    space = {"model": {"hidden": [3]}}
    out = tmp_path / "out"
    result = consilium.tune(ONE, records(), runs=4, folds=2, space=space, out=out, workers=1)
    assert result.trials[1].failed == "it diverged"
    assert result.trials[1].mean is None
    assert (result.number, result.chosen) == (1, ONE)
    monkeypatch.setattr(tuning, "train", None)  # finished: nothing is run again
    assert consilium.tune(ONE, records(), runs=4, folds=2, space=space, out=out).number == 1


@pytest.mark.slow
def test_the_command_prints_the_table_the_choice_and_its_price(tmp_path: Path) -> None:
    space, out = tmp_path / "space.toml", tmp_path / "out"
    space.write_text("[study]\nrounds = [2]\n")
    text = Path("studies/demo.toml").read_text().replace("rounds = 40", "rounds = 1")
    file = tmp_path / "study.toml"
    file.write_text(text)
    arguments = ["tune", file, "--runs", "4", "--folds", "2", "--space", space, "--out", out]
    done = CliRunner().invoke(app, [str(one) for one in arguments])
    assert done.exit_code == 0, done.output
    record = json.loads((out / "tune.json").read_text())
    said = " ".join(done.output.split())
    assert " ".join(record["why"].split()) in said
    assert f"{record['tried'][1]['mean']:.4f}" in said
    assert "private selection" in said
    assert (out / "study.toml").read_text().startswith("# consilium-simulate tune, seed")


def test_folds_that_cannot_be_judged_are_refused_before_anything_is_run(tmp_path: Path) -> None:
    with pytest.raises(
        consilium.SettingsError, match=r"fold \d+ cannot be judged.*give fewer folds"
    ):
        consilium.tune(ONE, records(), runs=60, folds=30, space=SPACE, out=tmp_path / "out")
