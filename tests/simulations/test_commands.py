"""The three commands as a person runs them: each mistake one sentence, a non-zero exit, no loss."""

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
from safetensors.numpy import load_file

from consilium.client.round import randomness, statistics_round
from consilium.shared.crypto.keystream import Keystream
from consilium.simulations.federation.out_folder import use_folder
from tests.needs import PATIENCE_S

ROOT = Path(__file__).parents[2]
STUDY = """
name = "small"
title = "Small"
rounds = 2
sites = ["coronary-unit", "cardiac-surgery", "medical-icu"]
[data]
source = "physionet2012"
label = "In-hospital_death"
minimum_patients = 5
[model]
hidden = 4
[training]
local_steps = 1
sampling_rate = 0.5
[privacy]
epsilon = 8.0
[aggregation]
round_timeout_s = 600.0
[variables]
HR = { unit = "/min", low = 10, high = 300, center = 85, spread = 18 }
Age = { unit = "a", low = 15, high = 120, center = 64, spread = 17, role = "static" }
"""


@dataclass(frozen=True)
class Result:
    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def run(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Result]:
    """Run a command's entry point as its console script does, in this process."""

    def run(package: str, *arguments: str | Path) -> Result:
        monkeypatch.setattr(sys, "argv", [package, *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            importlib.import_module(f"consilium.{package}.cli").main()
        printed = capsys.readouterr()
        return Result(int(ended.value.code or 0), printed.out, printed.err)

    return run


def refused(result: Result) -> str:
    """Return the one sentence of a refusal."""
    assert result.returncode == 1
    assert "Traceback" not in result.stderr + result.stdout
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    return lines[0]


@pytest.mark.parametrize("package", ["client", "server", "simulations"])
def test_each_package_runs_as_a_module_and_explains_itself(package: str) -> None:
    result = subprocess.run(
        [sys.executable, "-m", f"consilium.{package}", "--help"],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=True,
    )
    assert "Usage" in result.stdout


def write_set(folder: Path, which: str, *, first: int, deaths_in_unit_3: bool = True) -> None:
    """Write a set in the challenge's own format: 12 stays in each of the units 1, 2, 3."""
    records = folder / f"set-{which}"
    records.mkdir(parents=True)
    rows = ["RecordID,SAPS-I,SOFA,Length_of_stay,Survival,In-hospital_death"]
    for index in range(36):
        record, unit = first + index, index % 3 + 1
        died = int(index // 3 % 3 == 0 and (deaths_in_unit_3 or unit != 3))
        rows.append(f"{record},1,1,5,-1,{died}")
        (records / f"{record}.txt").write_text(
            f"Time,Parameter,Value\n00:00,RecordID,{record}\n00:00,Age,{40 + index}\n"
            f"00:00,Gender,0\n00:00,Height,-1\n00:00,ICUType,{unit}\n00:00,Weight,70\n"
            f"00:10,HR,{80 + 20 * died}\n07:30,HR,{85 + 20 * died}\n"
        )
    (folder / f"Outcomes-{which}.txt").write_text("\n".join(rows) + "\n")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_set(tmp_path / "data", "a", first=1000)
    write_set(tmp_path / "data", "b", first=2000)
    return tmp_path / "data"


@pytest.fixture
def study(tmp_path: Path) -> Path:
    path = tmp_path / "small.toml"
    path.write_text(STUDY)
    return path


@pytest.mark.slow
def test_run_leaves_record_model_and_figure_and_goes_on_only_with_its_own_study(
    run, study: Path, data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    result = run("simulations", "run", study, "--data", data, "--out", out)
    assert result.returncode == 0, result.stderr
    record = json.loads((out / "run.json").read_text())
    assert record["schema"] == 1
    assert len(record["study_digest"]) == 64
    assert len(record["rounds"]) == 2
    for name in ("auroc", "auprc", "brier"):
        estimate = record["test"][name]
        assert estimate["low"] <= estimate["value"] <= estimate["high"]
    assert record["privacy"]["mode"] == "site"
    assert 7.5 < record["privacy"]["epsilon"] <= 8
    assert record["privacy"]["delta"] == 1e-5
    assert record["seconds"] > 0
    assert record["bytes_up_per_site_per_round"] > 1000
    assert "<h2 id='summary-head'>" in (out / "report.html").read_text()
    assert "head.weight" in load_file(out / "model.safetensors")
    assert result.stdout.splitlines()[-1] == f" report  {out / 'report.html'}"

    (tmp_path / "other.toml").write_text(STUDY.replace("rounds = 2", "rounds = 1"))
    other = run("simulations", "run", tmp_path / "other.toml", "--data", data, "--out", out)
    assert "holds a run of another study" in refused(other)
    assert json.loads((out / "run.json").read_text()) == record


@pytest.mark.slow
def test_compare_puts_every_setting_in_one_table(
    run, study: Path, data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    result = run(
        "simulations", "compare", study, "--data", data, "--out", out, "--epsilon", "8",
        "--epsilon", "2",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    settings = json.loads((out / "compare.json").read_text())["settings"]
    assert list(settings) == [
        "logistic-regression",
        "gradient-boosting",
        "local",
        "pooled",
        "federated",
        "federated-private",
        "federated-private-epsilon-2",
    ]
    assert settings["federated"]["privacy"]["epsilon"] is None
    assert settings["federated-private-epsilon-2"]["privacy"]["epsilon"] <= 2
    assert set(settings["local"]["sites"]) == {"coronary-unit", "cardiac-surgery", "medical-icu"}
    for name, record in settings.items():
        assert name.split("-epsilon-")[0] in result.stdout
        for bound in ("value", "low", "high"):  # nothing is cut off at 80 columns
            assert f"{record['test']['auroc'][bound]:.3f}" in result.stdout


@pytest.mark.slow
def test_compare_with_seeds_prints_means_of_both_modes_at_80_columns(
    run, study: Path, data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    arguments = ("--data", data, "--out", out, "--epsilon", "8", "--seeds", "2", "--seed", "5")
    modes = ("--mode", "distributed", "--mode", "site")
    result = run("simulations", "compare", study, *arguments, *modes)
    assert result.returncode == 0, result.stderr
    summary = json.loads((out / "seeds.json").read_text())
    assert summary["seeds"] == [5, 6]
    assert {path.name for path in out.iterdir()} == {"seed-5", "seed-6", "seeds.json"}
    private = [s["mode"] for s in summary["settings"].values() if s["epsilon"] is not None]
    assert sorted(private) == ["distributed", "site"]
    for setting in summary["settings"].values():  # nothing is cut off at 80 columns
        figure = setting["test"]["auroc"]
        assert f"{figure['low']:.3f}-{figure['high']:.3f}" in result.stdout
        assert " ".join(f"{value:.3f}".lstrip("0") for value in figure["by_seed"]) in result.stdout
        assert f"{100 * setting['kept']:.1f} %" in result.stdout
    again = run("simulations", "compare", study, "--data", data, "--out", out, "--mode", "none")
    assert again.returncode != 0


@pytest.mark.slow
def test_compare_strategies_prints_a_table_and_why_some_make_no_sense(
    run, study: Path, data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    where = ("--data", data, "--out", out)
    result = run("simulations", "compare", study, *where, "--strategies", "fedadam,head,fedprox")
    assert result.returncode == 0, result.stderr
    written = json.loads((out / "strategies.json").read_text())
    assert set(written["settings"]) == {
        *("local", "pooled", "fedadam", "fedadam, site", "head", "head, site"),
    }
    for name, record in written["settings"].items():  # nothing is cut off at 80 columns
        assert f"\n{name} " in result.stdout
        assert f"{record['test']['auroc']['value']:.3f}" in result.stdout
    printed = " ".join(result.stdout.split())
    assert "fedprox: study small: [training] proximal 0.1 holds a site near the weights" in printed
    unknown = run("simulations", "compare", study, *where, "--strategies", "fedsgd")
    assert "there is no strategy 'fedsgd'; choose among study, fedavg" in refused(unknown)
    both = run("simulations", "compare", study, *where, "--strategies", "fedavg", "--epsilon", "3")
    assert "--epsilon does not go with --strategies" in refused(both)


def test_a_missing_data_folder_is_named(run, study: Path, tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    result = run("simulations", "run", study, "--data", nowhere, "--out", tmp_path / "out")
    assert f"--data {nowhere} does not exist; give the folder" in refused(result)
    without = run("simulations", "run", study, "--out", tmp_path / "out")
    assert "no --data was given" in refused(without)


def test_a_wrong_column_names_those_that_exist(
    run, study: Path, data: Path, tmp_path: Path
) -> None:
    study.write_text(STUDY.replace("In-hospital_death", "Died"))
    result = run("simulations", "run", study, "--data", data, "--out", tmp_path / "out")
    sentence = refused(result)
    assert "Died" in sentence
    assert "In-hospital_death" in sentence


def test_a_record_with_a_wrong_column_is_named(
    run, study: Path, data: Path, tmp_path: Path
) -> None:
    (data / "set-a" / "1001.txt").write_text("Time,Parameter\n00:00,RecordID\n")
    result = run("simulations", "run", study, "--data", data, "--out", tmp_path / "out")
    assert "1001.txt" in refused(result)


@pytest.mark.parametrize(
    ("before", "after", "sentence"),
    [
        ("epsilon = 8.0", "epsilon = 0", "[privacy] epsilon = 0 must be above 0"),
        ("epsilon = 8.0", "epsilon = -3", "[privacy] epsilon = -3 must be above 0"),
        ("epsilon = 8.0", "epsilom = 8.0", "did you mean 'epsilon'"),
        ("[aggregation]", "[aggregation]\nminimum_sites = 2", "minimum_sites = 2 must be at least"),
    ],
)
def test_a_bad_study_is_refused(
    run, study: Path, data: Path, tmp_path: Path, before: str, after: str, sentence: str
) -> None:
    study.write_text(STUDY.replace(before, after))
    result = run("simulations", "run", study, "--data", data, "--out", tmp_path / "out")
    assert sentence in refused(result)
    assert not (tmp_path / "out").exists()


def test_a_site_without_positive_labels_is_named(run, study: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    write_set(data, "a", first=1000, deaths_in_unit_3=False)
    write_set(data, "b", first=2000)
    result = run("simulations", "run", study, "--data", data, "--out", tmp_path / "out")
    sentence = refused(result)
    assert "site medical-icu" in sentence
    assert "positive" in sentence


def test_a_half_written_folder_says_how_to_go_on_and_is_left_alone(
    run, study: Path, data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "model.safetensors").write_text("half")
    result = run("simulations", "run", study, "--data", data, "--out", out)
    assert "is not empty and holds no checkpoint.safetensors" in refused(result)
    assert [file.name for file in out.iterdir()] == ["model.safetensors"]
    (out / "checkpoint.safetensors").write_text("half")
    broken = run("simulations", "run", study, "--data", data, "--out", out)
    assert "is not a readable checkpoint" in refused(broken)


def test_two_runs_cannot_share_a_folder(run, study: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with use_folder(out, marker="checkpoint.safetensors"):
        result = run("simulations", "run", study, "--data", data, "--out", out)
        assert "another run is using it" in refused(result)


def test_after_a_refusal_the_same_folder_can_be_used(run, study: Path, tmp_path: Path) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    write_set(data, "a", first=1000, deaths_in_unit_3=False)
    write_set(data, "b", first=2000)
    refused(run("simulations", "run", study, "--data", data, "--out", out))
    study.write_text(STUDY.replace("minimum_patients = 5", "minimum_patients = 500"))
    assert "500" in refused(run("simulations", "run", study, "--data", data, "--out", out))


def test_a_site_reads_the_study_and_its_own_data_before_it_approves(
    run, study: Path, data: Path
) -> None:
    review = run("client", "review", study)
    assert review.returncode == 0
    for part in ("What leaves", "epsilon 8", "coronary-unit", "Digest"):
        assert part in review.stdout
    check = run("client", "check", study, "--data", data, "--where", "ICUType=2", "--json")
    report = json.loads(check.stdout)
    assert (report["patients"], report["outcome_patients"][1]) == (12, 4)
    assert "--where ICUType: must be NAME=VALUE" in refused(
        run("client", "check", study, "--data", data, "--where", "ICUType")
    )


def test_a_study_above_the_default_policy_is_refused_with_the_bound(run, study: Path) -> None:
    study.write_text(STUDY.replace("epsilon = 8.0", "epsilon = 9.0"))
    assert "epsilon 9 is above this site's bound of 8" in refused(run("client", "review", study))


def test_an_operator_sees_what_a_study_fixes(run, study: Path) -> None:
    facts = json.loads(run("server", "check", study, "--json").stdout)
    assert (facts["threshold"], facts["minimum_sites"], facts["dropouts_tolerated"]) == (3, 3, 0)
    assert facts["affords"] == (
        "of 3 sites none may fail in a round, so one that does voids it, and 1 may work with the "
        "coordinator"
    )
    assert facts["epsilon"] <= 8


@pytest.mark.slow
def test_the_ledger_of_a_run_can_be_read(run, study: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run("simulations", "run", study, "--data", data, "--out", out)
    ledger = out / "sites" / "medical-icu" / "ledger.sqlite"
    shown = json.loads(run("client", "ledger", ledger, "--json").stdout)
    assert shown["studies"][0]["study_name"] == "small"
    assert shown["total"]["spent"] == pytest.approx(8.0, rel=0.01)
    assert "is not a file" in refused(run("client", "ledger", tmp_path))


@pytest.mark.slow
def test_plan_shows_the_cost_before_anything_is_spent(run, study: Path) -> None:
    told = json.loads(run("simulations", "plan", study, "--patients", "500", "--json").stdout)
    assert {row["epsilon"] for row in told["choices"]} == {8.0, 3.0, 1.0}
    assert told["secure_sum"]["neighbours"] == told["secure_sum"]["sites"] - 1
    priced = run("simulations", "plan", study, "--noise", "2").stdout
    assert "Noise multiplier 2 for 2 rounds costs epsilon" in priced
    assert "must be finite and above 0" in refused(
        run("simulations", "plan", study, "--noise", "0")
    )
    shown = run("simulations", "plan", study, "--epsilon", "2")
    assert "Nothing was spent" in " ".join(shown.stdout.split())


def test_the_worst_case_is_shown_as_a_table_and_within_the_claim(run, study: Path) -> None:
    shown = run("simulations", "worst-case", study)
    assert shown.returncode == 0
    assert shown.stdout.splitlines()[2].startswith("| small | ")
    assert "lacks the lines" in refused(run("simulations", "worst-case", study, "--into", study))


def test_doctor_says_which_kernel_is_in_use_and_why(run) -> None:
    shown = run("simulations", "doctor").stdout
    assert "recurrent cells run in" in shown
    assert "flwr  1.42.0" in shown


@pytest.mark.slow
def test_the_audit_of_an_honest_study_stays_below_its_claim(
    run, study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Keystream(bytes(32))  # the same draws each time: nothing fails by chance
    monkeypatch.setattr(randomness, "secrets", SimpleNamespace(token_bytes=source.bytes))
    result = run("simulations", "audit-privacy", study, "--json")
    audit = json.loads(result.stdout)
    assert 4 < audit["epsilon_low"] < audit["epsilon_claimed"] == 8
    assert audit["convicted"] is False
    assert result.returncode == 0


@pytest.mark.slow
def test_an_audit_that_convicts_ends_with_an_error_and_what_was_measured(
    run, study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statistics_round, "statistics_noise", lambda _: 0.0)
    result = run("simulations", "audit-privacy", study)
    assert "statistics, noise, standard deviation: 0 was measured" in refused(result)
    assert "whole study" in " ".join(result.stdout.split())


def test_a_study_without_privacy_has_nothing_to_audit(run, study: Path) -> None:
    study.write_text(STUDY.replace("epsilon = 8.0", 'mode = "none"'))
    assert "privacy" in refused(run("simulations", "audit-privacy", study))
