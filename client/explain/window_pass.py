"""A bidirectional model read over a whole window, with every column left out in turn.

A column is a few features of each step, and features enter the first layer by a product alone. So
the product is formed once, for the stay, and for each column what its features gave is taken away;
that is a small part of the work of one product a row. The rest is run as the model runs it.

Legend: R rows (the stay, then the stay without each column), T steps, F features, C columns, U what
enters the first layer linearly (measured features, and the vectors of codes), K of them in a
column, G pre-activations in the kernel's order, H hidden units, O outputs.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from consilium.client.records.running_features import Layout
from consilium.shared.kernels.through_time import Direction, in_kernel_order, serves
from consilium.shared.model.network import RecurrentModel


class WindowPass:
    """A model's weights, ready to be read so.

    Args:
        model: any but a GRU-D.
        layout: of its inputs.
    """

    def __init__(self, model: RecurrentModel, layout: Layout) -> None:
        self._model, self._hidden = model, model.recurrent.hidden
        self._keep_RF = torch.from_numpy(layout.without_each()).float()
        codes = layout.codes.tolist()
        places = [np.flatnonzero(~kept).tolist() for kept in layout.without_each()[1:] > 0]
        width = 0 if model.embedding is None else model.embedding.weight.shape[1]
        for number, column in enumerate(codes):  # a code is as many inputs as its vector is long
            start = model.measured + number * width
            places[column] = list(range(start, start + width))
        most = max(map(len, places))
        self._place_CK = torch.tensor([each + [0] * (most - len(each)) for each in places])
        used_CK = torch.tensor([[k < len(each) for k in range(most)] for each in places])
        self._directions = []
        for weights in model.recurrent.directions(0):
            linear_UG, bias_G = self._linear(tuple(part.detach() for part in weights))
            taken_CKG = linear_UG[self._place_CK] * used_CK.unsqueeze(2)
            parts = tuple(part.detach().contiguous() for part in weights)
            self._directions.append((parts, linear_UG, bias_G, taken_CKG))

    @staticmethod
    def serves() -> bool:
        """Whether the kernel is there, without which nothing is gained."""
        return serves(torch.zeros(0))

    def logits(self, x_TF: NDArray[np.float32], rows: NDArray[np.intp]) -> Tensor:
        """Return the logits (R, O) of these rows as of the last step; the first is the stay."""
        with torch.inference_mode():
            x = torch.from_numpy(x_TF)
            row_R = torch.from_numpy(rows)
            h_RTH = self._states(x, row_R[1:] - 1)
            mask_RT = torch.ones(h_RTH.shape[:2], dtype=torch.bool)
            last_R1F = (x[-1] * self._keep_RF[row_R]).unsqueeze(1)
            skipped = self._model.skipped(last_R1F, mask_RT[:, -1:])
            if self._model.task.per_step:
                h_RTH, mask_RT = h_RTH[:, -1:], mask_RT[:, -1:]
            logits = self._model.logits_of(h_RTH, mask_RT, skipped)
            return logits[:, -1] if self._model.task.per_step else logits

    def _states(self, x_TF: Tensor, column_C: Tensor) -> Tensor:
        u_TU = self._entering(x_TF)
        u_CTK = u_TU[:, self._place_CK[column_C]].transpose(0, 1)
        rows, steps = 1 + len(column_C), len(x_TF)
        h_RTH = torch.empty(rows, steps, self._hidden * len(self._directions))
        nothing = torch.empty(rows, steps, 0)
        for place, (weights, linear_UG, bias_G, taken_CKG) in enumerate(self._directions):
            states = h_RTH.narrow(2, self._hidden * place, self._hidden)
            cell = self._model.recurrent.cell
            direction = Direction(cell, weights, nothing, None, states, reverse=place > 0)
            begun_RTG = direction.begun_NTG
            torch.addmm(bias_G, u_TU, linear_UG, out=begun_RTG[0])
            taken = taken_CKG if len(column_C) == len(taken_CKG) else taken_CKG[column_C]
            torch.baddbmm(begun_RTG[:1], u_CTK, taken, alpha=-1, out=begun_RTG[1:])
            direction.forward()
        return self._model.recurrent.from_layer(1, h_RTH)

    def _linear(self, weights: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        """What one direction's pre-activations are of what enters: weights (U, G), bias (G,)."""
        model, cell = self._model, self._model.recurrent.cell
        input_GD, _, input_bias_G, hidden_bias_G = weights
        measured = len(input_GD[0]) - (
            0 if model.embedding is None else model.embedding.weight.shape[1]
        )
        by_feature, by_code = input_GD[:, :measured], input_GD[:, measured:]
        if model.projection is not None:
            projected_D = model.projection(torch.zeros(model.measured)).detach()
            input_bias_G = input_bias_G + by_feature @ projected_D
            by_feature = by_feature @ model.projection.weight.detach()
        linear_GU = torch.cat([by_feature, *[by_code] * model.codes], dim=1)
        ordered = [
            in_kernel_order(cell, self._hidden, part, states=states)
            for part, states in (
                (linear_GU, False),
                (input_bias_G.unsqueeze(1), False),
                (hidden_bias_G.unsqueeze(1), True),
            )
        ]
        return ordered[0].t().contiguous(), (ordered[1] + ordered[2]).squeeze(1)

    def _entering(self, x_TF: Tensor) -> Tensor:
        """What enters the first layer linearly (T, U): measured features, the vectors of codes."""
        model = self._model
        if model.embedding is None:
            return x_TF
        code_TK = x_TF[:, model.measured :].long()
        vector_TKE = model.embedding((code_TK - 1).clamp(min=0)) * (code_TK > 0).unsqueeze(2)
        return torch.cat([x_TF[:, : model.measured], vector_TKE.flatten(1)], dim=1)
