"""A package of networks, built and installed as an outside one, trains with privacy."""

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest

from consilium.client.commands.decisions import check_allowed
from consilium.client.hospital.approvals import Approval
from consilium.client.hospital.policy import Policy
from consilium.client.hospital.policy_file import TEMPLATE, parse_policy
from consilium.client.round.told import TOLD, refusal_of
from consilium.shared.errors import PolicyError, StudyError
from consilium.shared.study.definition import with_changes
from tests import outside_models as made
from tests.client import vouching
from tests.study_text import TEXT, small_study

ROOT = Path(__file__).parents[2]
TRAIN = """
import sys, tempfile
from dataclasses import replace
from pathlib import Path
from tests import outside_models as made
from tests.simulations.test_federation import TEXT
from consilium.shared.study.definition import parse_study, with_changes
from consilium.simulations.cohorts.study_cohorts import cohorts_for
from consilium.simulations.federation.run import Federation
from consilium.simulations.figures.held_out import HeldOut

study = with_changes(
    parse_study(TEXT.replace("hidden = 4", "")),
    study={"rounds": 2},
    model={"branches": [
        made.branch(settings={"width": 8, "heads": 2}), made.branch("acme-convolution"),
    ]},
    training={"local_steps": 1},
    privacy={"mode": "distributed", "epsilon": 8.0},
    evaluation={"every": 1},
)
assert "acme_models" not in sys.modules
cohorts = cohorts_for(study, None)
records = []
with tempfile.TemporaryDirectory() as folder:
    run = Federation(study, cohorts.sites, Path(folder), workers=1, protocol=True)
    start = run._checkpoint().state.server.model_weights.copy()
    test = HeldOut.read({"north": cohorts.test["north"]}, study)
    finished = run.train(records.append, test)
moved = finished.state.server.model_weights - start
assert 0 < abs(moved).max() < 10, moved
assert [one["void"] for one in records] == [None] * len(records), records
assert records[-1]["trained"] == 2, records[-1]
assert records[-1]["epsilon"] > 0, records[-1]
assert {"opacus", "acme_models.transformer", "acme_models.convolution"} <= set(sys.modules)
print("trained", len(moved))
"""


def test_a_policy_allows_no_module_by_default_and_its_refusal_is_a_fixed_sentence() -> None:
    named = {"kind": "module", "module": "acme-transformer", "version": "1", "digest": "0" * 64}
    study = small_study(model={"branches": [named]})
    for policy in (Policy(), parse_policy(""), parse_policy(TEMPLATE)):
        with pytest.raises(PolicyError, match=r"'acme-transformer', which .* \[models\] ins") as no:
            policy.check_study(study)
        assert refusal_of("north", no.value).sentence == TOLD["PolicyError.module"]
    parse_policy('[models]\ninstalled = ["acme-transformer"]').check_study(study)


def test_an_approval_asks_the_policy_then_the_package_then_the_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made.put_on_path(made.install_example(tmp_path), monkeypatch)
    named = made.branch("acme-convolution")

    def approves(branch: dict[str, object], policy: Policy) -> None:
        study = with_changes(vouching.study(), model={"branches": [branch]})
        approval = Approval(study=study, roster=vouching.roster(), sizes={})
        vouchers = SimpleNamespace(trust=vouching.trust)
        folder = SimpleNamespace(policy=lambda: policy, vouchers=lambda: vouchers)
        check_allowed(folder, approval, asked="approve")

    with pytest.raises(PolicyError, match="'acme-convolution', which this site's policy does not"):
        approves(named, Policy())
    assert "acme_models" not in sys.modules
    allows = Policy(installed_models=frozenset({"acme-convolution"}), vouched_at_least=0)
    with pytest.raises(StudyError, match="the study names version 7"):
        approves(named | {"version": "7"}, allows)
    assert "acme_models" not in sys.modules
    with pytest.raises(StudyError, match=r"cannot be made with the study's settings \(TypeError\)"):
        approves(named | {"settings": {"layers": "two"}}, allows)
    approves(named, allows)


@pytest.mark.slow
def test_an_installed_package_trains_privately_and_is_refused_where_it_is_not_listed(
    tmp_path: Path,
) -> None:
    """By pip into a fresh folder without a network, then in processes of their own."""
    if find_spec("pip") is None or find_spec("setuptools") is None:
        pytest.skip("pip or setuptools is not installed")
    source = shutil.copytree(made.EXAMPLE, tmp_path / "source")
    place = tmp_path / "packages"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps"]
    options = ["--no-build-isolation", "--disable-pip-version-check", "--target", place, source]
    subprocess.run([*pip, *options], check=True, capture_output=True)
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{place}"}

    trained = subprocess.run(
        [sys.executable, "-c", TRAIN], capture_output=True, text=True, env=environment, cwd=ROOT
    )
    assert trained.returncode == 0, trained.stderr
    assert trained.stdout.startswith("trained ")

    def site_says(*words: object) -> str:
        command = [sys.executable, "-m", "consilium.client", *words, "--folder", site]
        asked = {"capture_output": True, "text": True, "env": environment, "cwd": ROOT}
        told = subprocess.run(command, **asked)
        return " ".join(f"{told.returncode} {told.stdout} {told.stderr}".split())

    simulate = [sys.executable, "-m", "consilium.simulations", "module", "acme-convolution"]
    table = subprocess.run(simulate, capture_output=True, text=True, env=environment, cwd=ROOT)
    file, site = tmp_path / "study.toml", tmp_path / "site"
    site.mkdir(mode=0o700)
    file.write_text(f"{TEXT}\n{table.stdout}")
    (site / "policy.toml").write_text("")
    unlisted = site_says("review", file)
    assert "code that is not Consilium's: module acme-convolution" in unlisted
    assert "which this site's policy does not allow" in unlisted
    assert unlisted.startswith("1 ")
    (site / "policy.toml").write_text('[models]\ninstalled = ["acme-convolution"]\n')
    allowed = site_says("review", file)
    assert allowed.startswith("0 "), allowed
    (place / "acme_models" / "convolution.py").write_text("raise RuntimeError('it ran')\n")
    changed = site_says("review", file)
    assert changed.startswith("1 ")
    assert "has the digest" in changed
    assert "it ran" not in changed
