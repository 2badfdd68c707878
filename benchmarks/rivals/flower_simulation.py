"""Flower's simulation runtime on Ray: FedAvg, one step a client, no privacy.

pip install --target FOLDER --no-deps ray==2.55.1     (and FOLDER on PYTHONPATH)
"""

import os
import time

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1")

import numpy as np
import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation

from rivals.small_lstm import RATE, SAMPLE, SmallLSTM, site_data


def train(message: Message, context: Context) -> Message:
    torch.set_num_threads(1)
    x, y = site_data(context.node_config["partition-id"])
    network = SmallLSTM()
    network.load_state_dict(message.content["arrays"].to_torch_state_dict())
    picked = np.random.default_rng().permutation(len(y))[:SAMPLE]
    optimizer = torch.optim.SGD(network.parameters(), lr=RATE)
    torch.nn.functional.binary_cross_entropy_with_logits(network(x[picked]), y[picked]).backward()
    optimizer.step()
    metrics = MetricRecord({"num-examples": SAMPLE})
    content = {"arrays": ArrayRecord(network.state_dict()), "metrics": metrics}
    return Message(RecordDict(content), reply_to=message)


def run(sites: int, rounds: int) -> list[float]:
    """Return the seconds of each round."""
    client, server = ClientApp(), ServerApp()
    ends: list[float] = []
    client.train()(train)

    @server.main()
    def main(grid: Grid, context: Context) -> None:  # noqa: ARG001 - Flower passes both
        strategy = FedAvg(fraction_evaluate=0.0, min_train_nodes=sites, min_available_nodes=sites)
        strategy.start(
            grid=grid,
            initial_arrays=ArrayRecord(SmallLSTM().state_dict()),
            num_rounds=rounds,
            evaluate_fn=lambda *_: ends.append(time.monotonic()),
        )

    cores = len(os.sched_getaffinity(0))
    run_simulation(
        server,
        client,
        sites,
        backend_config={
            "init_args": {"num_cpus": cores, "include_dashboard": False},
            "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
        },
    )
    return list(np.diff(ends))
