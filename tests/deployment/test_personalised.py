"""What hospitals keep for themselves, through real processes: as simulated, and across a crash."""

import json
from pathlib import Path

import numpy as np
import pytest

from consilium.client.hospital.personal_store import PersonalStore
from consilium.client.sources.registry import open_source, read_data_settings
from consilium.server.study.checkpoints import load_checkpoint
from consilium.shared.study.definition import Study, parse_study
from consilium.simulations.federation.run import Federation as Simulation
from consilium.simulations.figures.held_out import HeldOut
from tests.deployment.federation import SITES, Federation, tiny_study, write_records

PATIENTS = 40
KEPT = {
    "own": {"own_weights", "statistics"},
    "corrected": {"control", "own_model"},
}
ADDED = {
    "own": '[personalisation]\nparts = ["head", "norm", "inputs"]\n',
    "corrected": "[personalisation.ditto]\npull = 0.3\nsteps = 2\n",
}
LOCAL = {"own": "proximal = 0.1", "corrected": "control_variates = true"}


def study_text(name: str, *, rounds: int) -> str:
    """The tiny study without noise, so that it repeats, with several local steps."""
    return (
        tiny_study(rounds=rounds)
        .replace('name = "tiny"', f'name = "{name}"')
        .replace("local_steps = 1", f"local_steps = 3\n{LOCAL[name]}")
        .replace("[model]", "[model]\nlayer_norm = true")
        + ADDED[name]
    )


def simulated(study: Study, federation: Federation, folder: Path) -> Path:
    """Run the study on the same records in this process; return the folder of its sites."""
    sources = {}
    for site, unit in federation.sites.items():
        where = {"source": "physionet2012", "path": str(federation.records),
                 "where": {"ICUType": unit}}  # fmt: skip
        chosen = read_data_settings(where, where=site, folder=folder)
        sources[site] = open_source(chosen, study)
    judge = HeldOut.read({"north": sources["north"]}, study)
    Simulation(study, sources, folder, workers=2).train(lambda _: None, judge)
    return folder


def predictions(federation: Federation, site: str, exported: Path) -> str:
    """What a site's command says of the patients of one unit."""
    file = federation.root / f"{site}.csv"
    federation.hospital(site, "predict", str(exported), "--out", str(file), "--data",
                        str(federation.records), "--where", "ICUType=1")  # fmt: skip
    assert lines(file) == 1 + PATIENTS
    return file.read_text()


def rounds_file(federation: Federation, text: str) -> Path:
    """Where the coordinator records the rounds of a study."""
    return federation.coordinator / "studies" / parse_study(text).digest.hex() / "rounds.jsonl"


def lines(file: Path) -> int:
    """How many lines a file has by now."""
    return len(file.read_text().splitlines()) if file.exists() else 0


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_what_sites_keep_is_as_simulated_though_one_was_killed_and_each_predicts_with_its_own(
    tmp_path: Path,
) -> None:
    write_records(tmp_path / "records", patients=PATIENTS, seed=1)
    federation = Federation(tmp_path / "f", tmp_path / "records")
    texts = {"own": study_text("own", rounds=20), "corrected": study_text("corrected", rounds=4)}
    federation.prepare(texts["own"])
    try:
        federation.start("coordinator")
        for site in SITES:
            federation.start(site)
        federation.pause_after(3, "own")  # so that no round is lost with the killed site
        assert lines(rounds_file(federation, texts["own"])) < 20
        federation.kill("north")
        federation.start("north")
        federation.operator("resume", "own")
        federation.finish(90, "own")
        federation.offer(texts["corrected"])
        federation.finish(90, "corrected")
        for name in texts:
            federation.operator("export", name, "--out", str(tmp_path / name))
    finally:
        federation.close()

    for name, text in texts.items():
        study = parse_study(text)
        file = rounds_file(federation, text)
        told = [json.loads(line) for line in file.read_text().splitlines()]
        assert all(one["sites"] == sorted(SITES) and one["void"] is None for one in told)
        learned = load_checkpoint(file.parent)
        folder = simulated(study, federation, tmp_path / f"simulated-{name}")
        expected = load_checkpoint(folder)
        assert learned is not None
        assert expected is not None
        state, alike = learned.state.server, expected.state.server
        assert state.weights_D.tobytes() == alike.weights_D.tobytes()
        assert state.control_D.tobytes() == alike.control_D.tobytes()
        kept = {}
        for site in SITES:
            (file,) = (federation.site(site) / "personal").glob(f"{study.digest.hex()}-*")
            assert file.stat().st_mode & 0o777 == 0o600
            kept[site] = PersonalStore(file.parent).latest(study.digest)
            there = PersonalStore(folder / "sites" / site / "personal").latest(study.digest)
            assert set(kept[site]) == set(there) == KEPT[name]
            assert all(np.array_equal(there[part], value) for part, value in kept[site].items())
        for part in KEPT[name]:
            assert len({value[part].tobytes() for value in kept.values()}) == len(SITES)
        risks = {predictions(federation, site, tmp_path / name) for site in SITES}
        assert len(risks) == len(SITES)  # of the same patients, each by its own model
