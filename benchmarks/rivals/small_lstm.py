"""The network and the data that rivals train: the same shapes as ours, in plain PyTorch."""

import numpy as np
import torch
from torch import Tensor, nn

FEATURES, HIDDEN, STEPS, PATIENTS = 88, 32, 24, 20
SAMPLE = 5  # patients of a step, a quarter of the site's
RATE = 1.0


class SmallLSTM(nn.Module):
    """An LSTM of 15,649 parameters with one risk."""

    def __init__(self) -> None:
        super().__init__()
        self.recurrent = nn.LSTM(FEATURES, HIDDEN, batch_first=True)
        self.head = nn.Linear(HIDDEN, 1)

    def forward(self, x_NTF: Tensor) -> Tensor:
        return self.head(self.recurrent(x_NTF)[0][:, -1]).squeeze(1)


def site_data(number: int) -> tuple[Tensor, Tensor]:
    """Return a site's inputs (P, T, F) and outcomes (P,)."""
    stream = np.random.default_rng(number)
    x_PTF = stream.standard_normal((PATIENTS, STEPS, FEATURES), dtype=np.float32)
    y_P = (stream.random(PATIENTS) < 0.2).astype(np.float32)
    return torch.from_numpy(x_PTF), torch.from_numpy(y_P)
