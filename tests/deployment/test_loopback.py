"""The script of the README on the real records: four sites and a coordinator as processes."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from consilium.client.ledger.store import Ledger
from consilium.server.coordinator.folder import CoordinatorFolder
from consilium.server.study.checkpoints import load_checkpoint
from consilium.shared.export.signed_model import load_signed_model
from consilium.shared.model.weight_vector import to_vector
from consilium.shared.study.definition import parse_study
from consilium.simulations.cohorts.study_cohorts import cohorts_for
from consilium.simulations.federation.run import Federation as Simulation
from consilium.simulations.figures.held_out import HeldOut
from tests.deployment.federation import free_port

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared" / "data" / "physionet2012"
STUDY = (ROOT / "studies" / "icu-mortality-2012.toml").read_text()
ROUNDS = 2  # the second begins where the first ended


def shortened(name: str, mode: str) -> str:
    """The intensive-care study with few rounds, under another name and privacy mode."""
    text, found = re.subn(r"(?m)^rounds = \d+$", f"rounds = {ROUNDS}", STUDY)
    assert found == 1
    text = text.replace('name = "icu-mortality-2012"', f'name = "{name}"')
    return text.replace('mode = "distributed"', f'mode = "{mode}"')


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(not DATA.exists(), reason="the challenge's files are not beside the repository")
def test_processes_on_loopback_learn_bit_for_bit_what_the_simulation_learns(tmp_path: Path) -> None:
    texts = {name: shortened(name, mode) for name, mode in
             (("icu-exact", "none"), ("icu-private", "distributed"))}  # fmt: skip
    for name, text in texts.items():
        (tmp_path / f"{name}.toml").write_text(text)
    folder = tmp_path / "federation"
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        [ROOT / "examples" / "loopback.sh", DATA, folder, *sorted(tmp_path.glob("*.toml"))],
        env=os.environ | {"PATH": path, "PORT": str(free_port()), "WITHOUT_PRIVACY": "1"},
        capture_output=True, text=True, timeout=1700, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert done.stdout.count("every release in the ledger stands in the log") == 4

    exact, private = parse_study(texts["icu-exact"]), parse_study(texts["icu-private"])
    runs = folder / "coordinator" / "studies"
    learned = load_checkpoint(runs / exact.digest.hex())
    sources = cohorts_for(exact, DATA).sites
    simulation = Simulation(exact, sources, tmp_path / "simulation", workers=2)
    judge = HeldOut.read({"coronary-unit": sources["coronary-unit"]}, exact)
    simulated = simulation.train(lambda _: None, judge)
    assert learned is not None
    assert learned.state.normalisation == simulated.state.normalisation
    assert learned.state.server.weights_D.tobytes() == simulated.state.server.weights_D.tobytes()

    signer = CoordinatorFolder.open(folder / "coordinator").identity().public
    exported = load_signed_model(folder / "models" / exact.name, signer)
    model_weights = simulated.state.server.model_weights
    assert to_vector(exported.trained.model).tobytes() == model_weights.tobytes()
    for site in exact.sites:
        assert len((folder / site / f"{exact.name}.csv").read_text().splitlines()) > 500

    kept = load_checkpoint(runs / private.digest.hex())
    assert kept is not None
    assert kept.state.trained == ROUNDS
    assert all(record["void"] is None for record in kept.history)
    for site in private.sites:
        ledger = Ledger(folder / site / "ledger.sqlite", lifetime_epsilon=16.0, delta=1e-5)
        purposes = [entry.release.purpose for entry in ledger.entries() if entry.confirmed]
        assert purposes == ["statistics", *["training"] * ROUNDS, *["calibration"] * 2]
        assert 0 < ledger.summary().total.spent <= 8.0
