"""Sites that compute on Flower's Ray runtime give what sites in one process give, to the bit."""

import ctypes
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from consilium.client.round.round_model import RoundModel
from consilium.shared.errors import SettingsError, UnreachableError
from consilium.shared.study.definition import with_changes
from consilium.simulations.cohorts.study_cohorts import cohorts_for
from consilium.simulations.federation import flower_engine, ray_cluster
from consilium.simulations.federation.flower_engine import FlowerEngine
from consilium.simulations.federation.ray_cluster import Cluster, connected
from consilium.simulations.federation.run import Federation
from consilium.simulations.figures.held_out import HeldOut
from consilium.simulations.runs.examples import example_study
from tests.deployment.federation import free_port

needs_ray = pytest.mark.skipif(
    find_spec("ray") is None, reason="Ray is not installed: pip install 'consilium-fl[ray]'"
)


def small_study(**changes):
    """The demo's study of four small sites, without privacy unless changed."""
    small = {
        "study": {"rounds": 2, "sites": ["north", "east", "south", "west"]},
        "model": {"hidden": 4},
        "privacy": {"mode": "none"},
    }
    return with_changes(example_study("demo"), **(small | changes))


def trained(study, folder, engine=None, *, protocol=False):
    """The final weights of a run, and its result."""
    cohorts = cohorts_for(study, None)
    federation = Federation(study, cohorts.sites, folder, workers=2, engine=engine,
                            protocol=protocol)  # fmt: skip
    done = federation.train(lambda record: None, HeldOut.read(cohorts.test, study))
    return done.state.server.weights_D, done


@contextmanager
def two_nodes(cpus=1):
    """Two Ray nodes, each a tree of processes of its own; yields port, client port and both."""
    port, client_port, started = free_port(), free_port(), []
    environment = os.environ | {"RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    with tempfile.TemporaryDirectory(
        prefix="ray", dir="/tmp"
    ) as folder:  # a short name, for sockets
        head = ["--head", f"--port={port}", f"--temp-dir={folder}", "--include-dashboard=false",
                f"--ray-client-server-port={client_port}"]  # fmt: skip
        try:
            for words in (head, [f"--address=127.0.0.1:{port}"]):
                command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block",
                           f"--num-cpus={cpus}", "--node-ip-address=127.0.0.1",
                           "--object-store-memory=100000000", *words]  # fmt: skip
                with Path(folder, f"node-{len(started)}.out").open("wb") as log:
                    started.append(subprocess.Popen(
                        command, env=environment, stdout=log, stderr=log, preexec_fn=die_with_parent
                    ))  # fmt: skip
                wait_for_nodes(f"127.0.0.1:{port}", len(started), environment)
            yield port, client_port, started
        finally:
            everyone = [pid for process in started for pid in tree(process.pid)]
            for process in reversed(started):
                process.terminate()
            for process in started:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(20)
            kill(everyone)
            for process in started:
                process.wait()


def die_with_parent():
    """Let Linux end this process when its parent ends, however that ends."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)


def tree(pid):
    """A process and all below it."""
    found = [pid]
    for one in found:
        with suppress(OSError):
            for children in Path(f"/proc/{one}/task").glob("*/children"):
                found += map(int, children.read_text().split())
    return found


def kill(pids):
    """Kill processes by their numbers; some may have ended."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def wait_for_nodes(address, count, environment):
    """Wait until so many nodes have joined."""
    code = (
        "import ray\n"
        f"ray.init(address={address!r}, log_to_driver=False, logging_level='error')\n"
        f"assert sum(node['Alive'] for node in ray.nodes()) >= {count}\n"
    )
    deadline = time.monotonic() + 120
    while True:
        tried = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True
        )
        if tried.returncode == 0:
            return
        assert time.monotonic() < deadline, tried.stderr
        time.sleep(0.2)


@needs_ray
@pytest.mark.slow
def test_two_ray_nodes_give_the_weights_of_one_process_to_the_bit(tmp_path):
    plain = small_study()
    own = small_study(
        study={"rounds": 2, "sites": ["north", "east", "south"]},
        personalisation={"parts": ["head"]},
    )
    with two_nodes() as (port, client_port, _):
        client = f"ray://127.0.0.1:{client_port}"
        for number, (study, address) in enumerate(((plain, f"127.0.0.1:{port}"), (own, client))):
            here_D, here = trained(study, tmp_path / f"here-{number}")
            engine = FlowerEngine(Cluster(address), workers=1)
            there_D, there = trained(study, tmp_path / f"there-{number}", engine)
            assert np.array_equal(there_D, here_D)
            assert there.test == here.test
            for site, state in here.own.items():
                assert np.array_equal(there.own[site].server.average_D, state.server.average_D)
            rounds = len([record for record in there.history if record["sites"]])
            assert sum(engine.computed.values()) == rounds * len(study.sites)
            assert len(engine.computed) == 2, engine.computed


@needs_ray
@pytest.mark.slow
def test_a_lost_machine_ends_the_run_which_goes_on_from_its_last_whole_round(tmp_path):
    study = small_study(study={"rounds": 3, "sites": ["north", "east", "south", "west"]})
    cohorts = cohorts_for(study, None)
    test = HeldOut.read(cohorts.test, study)
    seen = []
    with two_nodes() as (port, _, nodes):

        def lose_a_machine(record):
            seen.append(record["round"])
            if record["purpose"] == "training":
                kill(tree(nodes[1].pid))

        engine = FlowerEngine(Cluster(f"127.0.0.1:{port}"), workers=1)
        federation = Federation(study, cohorts.sites, tmp_path / "r", workers=1, engine=engine)
        with pytest.raises(UnreachableError, match="a machine of the Ray cluster was lost"):
            federation.train(lose_a_machine, test)
    assert seen == [1, 2]
    again = Federation(study, cohorts.sites, tmp_path / "r", workers=2)
    finished = again.train(lambda record: None, test)
    assert [record["purpose"] for record in finished.history].count("training") == 3
    assert all(not record.get("void") for record in finished.history)


def test_an_address_where_no_cluster_answers_is_refused_in_one_sentence(monkeypatch):
    if find_spec("ray") is None:
        sentence = "Ray is not installed"
    else:
        import ray

        def refuse(**_):
            raise ConnectionError("nobody")

        monkeypatch.setattr(ray, "init", refuse)
        sentence = "--engine-address 127.0.0.1:1: no Ray cluster answers there"
    with (
        pytest.raises(SettingsError, match=sentence),
        connected(Cluster("127.0.0.1:1"), workers=1),
    ):
        pass


def test_without_ray_its_engine_is_refused_with_the_remedy(monkeypatch):
    monkeypatch.setattr(ray_cluster, "find_spec", lambda name: None)
    with (
        pytest.raises(SettingsError, match=r"pip install 'consilium-fl\[ray\]'"),
        connected(Cluster(None), workers=1),
    ):
        pass


@pytest.mark.parametrize("protocol", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_site_computes_the_same_from_a_message_as_in_its_own_process(tmp_path, protocol):
    study = small_study(study={"rounds": 1, "sites": ["north", "east", "south"]},
                        personalisation={"parts": ["head"]})  # fmt: skip
    seen = {}

    class Here(FlowerEngine):
        """Answers in this process what an actor would."""

        @contextmanager
        def running(self, sites):
            self.sites = sites
            yield 2

        def compute(self, site, question):
            far = pickle.loads(pickle.dumps(self.sites[site]))  # noqa: S301 - as Ray's store does
            seen[site] = seen.get(site, 0) + 1
            return flower_engine._computed(far, question, RoundModel(far.study), "here")

    engine = Here(Cluster(None), workers=2)
    here_D, here = trained(study, tmp_path / "here", protocol=protocol)
    there_D, there = trained(study, tmp_path / "there", engine, protocol=protocol)
    assert np.array_equal(there_D, here_D)
    assert there.test == here.test
    for site, state in here.own.items():
        assert np.array_equal(there.own[site].server.average_D, state.server.average_D)
    assert set(seen) == set(study.sites)
