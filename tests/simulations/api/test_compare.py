"""Settings side by side, of one seed and of several, and what they would cost."""

import json
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner

import consilium
from consilium.simulations.cli import app
from tests.simulations.api.small_hospitals import TEXT, records, study

pytestmark = pytest.mark.slow  # each setting trains several models

NAMES = [
    "logistic-regression", "gradient-boosting", "local", "pooled", "federated", "federated-private",
]  # fmt: skip


@pytest.fixture(scope="module")
def seen() -> list[tuple[str, str]]:
    return []


@pytest.fixture(scope="module")
def seeds(
    tmp_path_factory: pytest.TempPathFactory, seen: list[tuple[str, str]]
) -> consilium.Comparison:
    return consilium.compare(
        study(),
        records(),
        epsilons=(6.0,),
        seeds=2,
        out=tmp_path_factory.mktemp("compared") / "out",
        workers=2,
        progress=lambda setting, one: seen.append((setting, one.purpose)),
    )


@pytest.fixture(scope="module")
def one(seeds: consilium.Comparison) -> consilium.Comparison:
    return consilium.open_comparison(seeds.folder / "seed-5")


def test_a_comparison_has_every_setting_with_the_figures_of_its_record(
    one: consilium.Comparison,
) -> None:
    assert [setting.name for setting in one.settings] == NAMES
    told = json.loads((one.folder / "compare.json").read_text())["settings"]
    for setting in one.settings:
        assert setting.test.auroc.value == told[setting.name]["test"]["auroc"]["value"]
        assert setting.test.patients == 120
        assert set(setting.by_site) == set(study().sites)
        assert setting.kept == pytest.approx(
            setting.test.auroc.value / one.setting("pooled").test.auroc.value
        )
        assert setting.by_seed["auroc"] == (setting.test.auroc.value,)
    assert set(one.setting("local").models) == set(study().sites)
    assert one.setting("federated").epsilon is None
    private = one.setting("federated-private")
    assert private.mode == "site"
    assert private.epsilon is not None
    assert private.epsilon <= 6.0 * (1 + 1e-9)
    assert (one.study, one.seeds) == (study(), (5,))


@pytest.mark.slow
def test_over_seeds_it_has_the_means_and_each_seeds_value(
    seeds: consilium.Comparison, one: consilium.Comparison
) -> None:
    assert seeds.seeds == (5, 6)
    assert [setting.name for setting in seeds.settings] == NAMES
    for setting in seeds.settings:
        first, second = setting.by_seed["auroc"]
        assert first == one.setting(setting.name).test.auroc.value
        assert setting.test.auroc.value == pytest.approx((first + second) / 2)
        assert setting.test.patients == 120
        assert list(setting.by_site["north"].estimates) == ["auroc"]


def test_its_rounds_are_told_by_setting(
    seeds: consilium.Comparison, seen: list[tuple[str, str]]
) -> None:
    assert seeds.settings
    assert seen[:3] == [("federated", one) for one in ("statistics", "training", "evaluation")]
    assert {setting for setting, _ in seen} == {"federated", "federated-private"}


def test_its_table_is_a_data_frame_with_a_row_a_setting(one: consilium.Comparison) -> None:
    frame = one.table()
    assert isinstance(frame, pl.DataFrame)
    assert frame["setting"].to_list() == NAMES
    assert frame.columns[:6] == ["setting", "mode", "epsilon", "auroc", "auroc_low", "auroc_high"]


def test_it_reports_and_cannot_be_changed(
    seeds: consilium.Comparison, one: consilium.Comparison, tmp_path: Path
) -> None:
    written = one.report(tmp_path / "one.html")
    assert "run.json and compare.json" in written.read_text()  # what it was made from
    assert seeds.report() == seeds.folder / "seed-5" / "report.html"
    for target, name in ((one, "settings"), (one.settings[0], "kept")):
        with pytest.raises(AttributeError):
            setattr(target, name, None)


def test_what_cannot_be_compared_is_refused_in_a_sentence(
    one: consilium.Comparison, tmp_path: Path
) -> None:
    with pytest.raises(consilium.SettingsError, match="there is no setting 'best'; choose one of"):
        one.setting("best")
    with pytest.raises(consilium.SettingsError, match="'none' is no mode that keeps anything"):
        consilium.compare(study(), records(), modes=["none"], out=tmp_path / "a")
    with pytest.raises(consilium.SettingsError, match="seeds 0: must be at least 1"):
        consilium.compare(study(), records(), seeds=0)
    with pytest.raises(consilium.SettingsError, match="nothing says where its records are"):
        consilium.compare(study(), out=tmp_path / "a")
    with pytest.raises(consilium.SettingsError, match=r"compare\.json: cannot be read"):
        consilium.open_comparison(tmp_path)
    assert not (tmp_path / "a").exists()


def test_a_plan_is_what_the_command_prints(tmp_path: Path) -> None:
    file = tmp_path / "own.toml"
    file.write_text(TEXT)
    options = ["--epsilon", "6", "--noise", "1.5", "--patients", "200", "--json"]
    told = json.loads(CliRunner().invoke(app, ["plan", str(file), *options]).output)
    plan = consilium.plan(study(), epsilons=[6.0], noise=1.5, patients=200)
    assert plan.secure_sum.threshold == told["secure_sum"]["threshold"]
    assert [choice.noise_multiplier for choice in plan.choices] == [
        choice["noise_multiplier"] for choice in told["choices"]
    ]
    assert plan.noise_carried == told["noise_carried"]
    assert {str(r): e for r, e in plan.epsilon_of_noise.items()} == told["epsilon_of_noise"]
    assert plan.table()["epsilon"].to_list() == [6.0] * len(plan.choices)
    with pytest.raises(AttributeError):
        plan.patients = 3  # type: ignore[misc]
    with pytest.raises(consilium.SettingsError, match="patients 0: must be at least 1"):
        consilium.plan(study(), patients=0)
