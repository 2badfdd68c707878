"""pfl-research's simulation: FedAvg, one step a user, no privacy, in one process.

What it needs, and how to install that, stands in benchmarks/simulation.py.
"""

import time
from typing import Any

import numpy as np
import torch
from pfl.aggregate.simulate import SimulatedBackend
from pfl.algorithm.base import NNAlgorithmParams
from pfl.algorithm.federated_averaging import FederatedAveraging
from pfl.callback.base import TrainingProcessCallback
from pfl.data.dataset import Dataset
from pfl.data.federated_dataset import FederatedDataset
from pfl.hyperparam import NNEvalHyperParams, NNTrainHyperParams
from pfl.metrics import Metrics, Weighted
from pfl.model.pytorch import PyTorchModel
from torch import Tensor

from rivals.small_lstm import RATE, SAMPLE, SmallLSTM, site_data


class Trained(SmallLSTM):
    """The network with what pfl asks of a model."""

    def loss(self, x_NTF: Tensor, y_N: Tensor, eval: bool = False) -> Tensor:  # noqa: A002, ARG002 - pfl names it
        return torch.nn.functional.binary_cross_entropy_with_logits(self(x_NTF), y_N)

    def metrics(self, x_NTF: Tensor, y_N: Tensor, eval: bool = False) -> dict[str, Any]:  # noqa: A002, ARG002 - pfl names it
        return {"loss": Weighted(float(self.loss(x_NTF, y_N).detach()) * len(y_N), len(y_N))}


class Times(TrainingProcessCallback):
    """Notes when each iteration ends."""

    def __init__(self) -> None:
        self.ends = [time.monotonic()]

    def after_central_iteration(self, *_: Any, **__: Any) -> tuple[bool, Metrics]:
        self.ends.append(time.monotonic())
        return False, Metrics()


def run(sites: int, rounds: int) -> list[float]:
    """Return the seconds of each round."""
    torch.manual_seed(0)
    data = [site_data(number) for number in range(sites)]
    order = iter(number % sites for number in range(sites * (rounds + 1)))

    def dataset(number: int) -> Dataset:
        x, y = data[number]
        picked = np.random.default_rng().permutation(len(y))[:SAMPLE]
        return Dataset([x[picked], y[picked]])

    network, times = Trained(), Times()
    model = PyTorchModel(
        model=network,
        local_optimizer_create=torch.optim.SGD,
        central_optimizer=torch.optim.SGD(network.parameters(), lr=RATE),
    )
    users = FederatedDataset(dataset, lambda: next(order))
    FederatedAveraging().run(
        algorithm_params=NNAlgorithmParams(
            central_num_iterations=rounds,
            evaluation_frequency=rounds + 1,
            train_cohort_size=sites,
            val_cohort_size=0,
        ),
        backend=SimulatedBackend(training_data=users, val_data=users),
        model=model,
        model_train_params=NNTrainHyperParams(
            local_num_epochs=1, local_learning_rate=RATE, local_batch_size=None
        ),
        model_eval_params=NNEvalHyperParams(local_batch_size=None),
        callbacks=[times],
    )
    return list(np.diff(times.ends))
