"""A temporal convolution (Bai, Kolter and Koltun 2018): each step sees itself and earlier ones."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from consilium.shared.model.installed_module import Asked


class TemporalConvolution(nn.Module):
    """Causal, dilated convolutions with residuals, then the mean of the valid steps -> logits.

    Settings: ``channels``, ``kernel``, ``layers``. Codes are not read.
    """

    def __init__(self, asked: "Asked") -> None:
        super().__init__()
        chosen = {"channels": 16, "kernel": 3, "layers": 2} | asked.settings
        channels, self.kernel, self.per_step = chosen["channels"], chosen["kernel"], asked.per_step
        self.enter = nn.Conv1d(2 * asked.variables, channels, 1)
        self.convolutions = nn.ModuleList(
            nn.Conv1d(channels, channels, self.kernel, dilation=2**depth)
            for depth in range(chosen["layers"])
        )
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for _ in range(chosen["layers"]))
        self.leave = nn.Linear(channels, asked.outputs)

    def forward(self, values: Tensor, observed: Tensor, hours: Tensor, lengths: Tensor) -> Tensor:
        states = self.enter(torch.cat([values, observed], dim=2).transpose(1, 2))
        for depth, (convolution, norm) in enumerate(
            zip(self.convolutions, self.norms, strict=True)
        ):
            past = functional.pad(states, ((self.kernel - 1) * 2**depth, 0))
            states = states + torch.relu(norm(convolution(past).transpose(1, 2))).transpose(1, 2)
        states = states.transpose(1, 2)
        if self.per_step:
            return self.leave(states)
        valid = torch.arange(states.shape[1], device=states.device) < lengths.unsqueeze(1)
        kept = torch.where(valid.unsqueeze(2), states, 0.0)
        return self.leave(kept.sum(1) / lengths.unsqueeze(1))
