"""A transformer encoder (Vaswani et al. 2017) over the hours of a stay."""

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from consilium.shared.model.installed_module import Asked


class Transformer(nn.Module):
    """[values, observed] -> width -> encoder layers -> mean of the valid steps -> logits.

    Settings: ``width``, ``heads``, ``layers``, ``dropout``.
    """

    def __init__(self, asked: "Asked") -> None:
        super().__init__()
        chosen = {"width": 32, "heads": 4, "layers": 1, "dropout": 0.1} | asked.settings
        self.width, self.per_step = chosen["width"], asked.per_step
        self.enter = nn.Linear(2 * asked.variables, self.width)
        self.codes = None
        if asked.codes:
            self.codes = nn.Embedding(asked.vocabulary, self.width, padding_idx=0)
        self.encoder = nn.ModuleList(
            nn.TransformerEncoderLayer(
                self.width,
                chosen["heads"],
                dim_feedforward=2 * self.width,
                dropout=chosen["dropout"],
                batch_first=True,
                norm_first=True,
            )
            for _ in range(chosen["layers"])
        )
        self.leave = nn.Linear(self.width, asked.outputs)

    def forward(
        self,
        values: Tensor,
        observed: Tensor,
        hours: Tensor,
        lengths: Tensor,
        codes: Tensor | None = None,
    ) -> Tensor:
        steps = values.shape[1]
        states = self.enter(torch.cat([values, observed], dim=2)) + self._when(hours)
        if self.codes is not None:
            states = states + self.codes(codes).sum(2)
        valid = torch.arange(steps, device=values.device) < lengths.unsqueeze(1)
        later = None
        if self.per_step:  # what is said of an hour must not depend on the hours after it
            later = torch.ones(steps, steps, dtype=torch.bool, device=values.device).triu(1)
        for layer in self.encoder:
            states = layer(states, src_mask=later, src_key_padding_mask=~valid)
        if self.per_step:
            return self.leave(states)
        kept = torch.where(valid.unsqueeze(2), states, 0.0)
        return self.leave(kept.sum(1) / lengths.unsqueeze(1))

    def _when(self, hours: Tensor) -> Tensor:
        """Sines and cosines of the hour; computed, so that there is no state beside the weights."""
        half = self.width // 2
        rate = torch.exp(torch.arange(half, device=hours.device) * (-math.log(1e4) / half))
        angle = hours.unsqueeze(2) * rate
        return torch.cat([angle.sin(), angle.cos()], dim=2)
