"""Flower's default path: a ServerApp with FedAvg, and ClientApps, over a SuperLink and SuperNodes.

Nothing is trained or protected: no TLS, no node authentication, no masks. A round is what
``FedAvg`` does by default: a train message and an evaluate message to every node.
"""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path

PYPROJECT = """
[project]
name = "plain"
version = "1.0.0"
dependencies = []
[tool.flwr.app]
publisher = "bench"
[tool.flwr.app.components]
serverapp = "plain.server_app:app"
clientapp = "plain.client_app:app"
"""
SERVER = """
import time
import numpy as np
from flwr.app import ArrayRecord
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg

app = ServerApp()

@app.main()
def main(grid, context):
    def note(number, arrays):
        with open({times!r}, "a") as file:
            file.write(f"{{time.time()}}\\n")

    strategy = FedAvg(min_train_nodes={sites}, min_evaluate_nodes={sites},
                      min_available_nodes={sites})
    arrays = ArrayRecord([np.zeros({size}, np.float32)])
    strategy.start(grid=grid, initial_arrays=arrays, num_rounds={rounds}, evaluate_fn=note)
"""
CLIENT = """
{imports}
from flwr.app import Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()

@app.train()
def train(message, context):
    metrics = MetricRecord({{"num-examples": 1}})
    content = {{"arrays": message.content["arrays"], "metrics": metrics}}
    return Message(RecordDict(content), reply_to=message)

@app.evaluate()
def evaluate(message, context):
    metrics = MetricRecord({{"num-examples": 1, "loss": 0.0}})
    return Message(RecordDict({{"metrics": metrics}}), reply_to=message)
"""


def seconds_a_round(
    folder: Path, *, sites: int, size: int, rounds: int, imports: str
) -> list[float]:
    """Return the seconds of each of Flower's rounds, with `size` float32 parameters.

    ``imports`` is what the clients import beside Flower, a line of Python.
    """
    times = folder / "times"
    app = folder / "app"
    (app / "plain").mkdir(parents=True)
    (app / "pyproject.toml").write_text(PYPROJECT)
    (app / "plain" / "__init__.py").touch()
    server = SERVER.format(times=str(times), sites=sites, size=size, rounds=rounds)
    (app / "plain" / "server_app.py").write_text(server)
    (app / "plain" / "client_app.py").write_text(CLIENT.format(imports=imports))
    port = _free_port()
    (folder / "config.toml").write_text(
        f'[superlink]\ndefault = "bench"\n[superlink.bench]\naddress = "127.0.0.1:{port}"\n'
        "insecure = true\n"
    )
    with ExitStack() as stack:
        link = ["flower-superlink", "--insecure", "--port", str(port),
                "--database", str(folder / "state.db")]  # fmt: skip
        stack.enter_context(_process(link, folder))
        _wait_for_port(port)
        for number in range(sites):
            node = ["flower-supernode", "--insecure", "--superlink", f"127.0.0.1:{port}",
                    "--port", str(_free_port())]  # fmt: skip
            stack.enter_context(_process(node, folder / f"node{number}"))
        run = [_program("flwr"), "run", str(app), "bench"]
        subprocess.run(  # noqa: S603 - Flower's own program
            run, env=_environment(folder), check=True, capture_output=True
        )
        deadline = time.monotonic() + 120 + 120 * rounds
        while len(noted := times.read_text().split() if times.exists() else []) <= rounds:
            if time.monotonic() > deadline:
                raise TimeoutError(f"Flower's run stands at {len(noted)} of {rounds} rounds")
            time.sleep(0.2)
    marks = [float(mark) for mark in noted]
    return [after - before for before, after in pairwise(marks)]


@contextmanager
def _process(command: list[str], home: Path) -> Iterator[None]:
    home.mkdir(exist_ok=True)
    with (home / f"{command[0]}.log").open("wb") as log:
        process = subprocess.Popen(  # noqa: S603 - Flower's own programs
            [_program(command[0]), *command[1:]], env=_environment(home), stdout=log, stderr=log
        )
        try:
            yield
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _program(name: str) -> str:
    return str(Path(sys.executable).parent / name)


def _environment(home: Path) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if "proxy" not in k.lower()}
    path = f"{Path(sys.executable).parent}:{kept['PATH']}"
    return kept | {
        "FLWR_HOME": str(home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "PATH": path,
    }


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for_port(port: int) -> None:
    for _ in range(300):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise TimeoutError(f"nothing listens on port {port}")
