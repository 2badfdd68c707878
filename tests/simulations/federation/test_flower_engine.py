"""Sites that compute on Flower's Ray runtime give what sites in one process give, to the bit."""

import os
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

from consilium.shared.errors import SettingsError, UnreachableError
from consilium.shared.study.definition import with_changes
from consilium.simulations.cohorts.study_cohorts import cohorts_for
from consilium.simulations.federation import flower_engine
from consilium.simulations.federation.flower_engine import FlowerEngine
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


def trained(study, folder, engine=None):
    """The final weights of a run, and its result."""
    cohorts = cohorts_for(study, None)
    federation = Federation(study, cohorts.sites, folder, workers=2, engine=engine)
    done = federation.train(lambda record: None, HeldOut.read(cohorts.test, study))
    return done.state.server.weights_D, done


@contextmanager
def two_nodes(cpus=1):
    """Two Ray nodes, each a tree of processes of its own, on loopback; yields port and trees."""
    port, started = free_port(), []
    environment = os.environ | {"RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    with tempfile.TemporaryDirectory(prefix="ray", dir="/tmp") as folder:  # noqa: S108 - short: holds sockets
        head = ["--head", f"--port={port}", f"--temp-dir={folder}", "--include-dashboard=false",
                f"--ray-client-server-port={free_port()}"]  # fmt: skip
        try:
            for words in (head, [f"--address=127.0.0.1:{port}"]):
                command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block",
                           f"--num-cpus={cpus}", "--node-ip-address=127.0.0.1",
                           "--object-store-memory=100000000", *words]  # fmt: skip
                log = Path(folder, f"node-{len(started)}.out").open("wb")
                with log:
                    started.append(subprocess.Popen(
                        command, env=environment, stdout=log, stderr=log, start_new_session=True
                    ))  # fmt: skip
                wait_for_nodes(f"127.0.0.1:{port}", len(started), environment)
            yield port, started
        finally:
            for process in reversed(started):
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGTERM)
            for process in started:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(20)
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()


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
def test_two_ray_nodes_give_the_weights_of_one_process_to_the_bit(tmp_path, capsys):
    plain = small_study()
    own = small_study(
        study={"rounds": 2, "sites": ["north", "east", "south"]},
        personalisation={"parts": ["head"]},
    )
    with two_nodes() as (port, _):
        for number, study in enumerate((plain, own)):
            here_D, here = trained(study, tmp_path / f"here-{number}")
            engine = FlowerEngine(f"127.0.0.1:{port}", workers=1)
            there_D, there = trained(study, tmp_path / f"there-{number}", engine)
            assert np.array_equal(there_D, here_D)
            assert there.test == here.test
            for site, state in here.own.items():
                assert np.array_equal(there.own[site].server.average_D, state.server.average_D)
            rounds = len([record for record in there.history if record["sites"]])
            assert sum(engine.computed.values()) == rounds * len(study.sites)
            assert len(engine.computed) == 2, engine.computed
            with capsys.disabled():
                print(f"\n{study.name}, {len(study.sites)} sites: computed on {engine.computed}")
