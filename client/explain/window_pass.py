"""Runs a model over a whole window, once for the stay and once without each column.

A column (a variable, or a column of codes) is a few features of each step, and features enter the
first layer through a matrix product only. So the product is computed once for the stay, and for
each column the contribution of its features is subtracted; that is far less work than one product
per row. The later layers run as in the model.

The rows of a batch are the stay, then the stay without each column. The results of the linear map
are in the kernel's order of gates.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from consilium.client.records.running_features import Layout
from consilium.shared.kernels.through_time import Direction, in_kernel_order, serves
from consilium.shared.model.network import RecurrentModel


class WindowPass:
    """A model's weights, prepared for such passes.

    Args:
        model: any model but a GRU-D.
        layout: layout of its inputs.
    """

    def __init__(self, model: RecurrentModel, layout: Layout) -> None:
        self._model, self._hidden = model, model.recurrent.hidden
        self._keep_NF = torch.from_numpy(layout.without_each()).float()
        codes = layout.codes.tolist()
        places = [np.flatnonzero(~kept).tolist() for kept in layout.without_each()[1:] > 0]
        width = 0 if model.embedding is None else model.embedding.weight.shape[1]
        for number, column in enumerate(codes):  # a code takes as many inputs as its vector is long
            start = model.measured + number * width
            places[column] = list(range(start, start + width))
        most = max(map(len, places))
        self._place_CU = torch.tensor([each + [0] * (most - len(each)) for each in places])
        used_CU = torch.tensor([[k < len(each) for k in range(most)] for each in places])
        self._directions = []
        for weights in model.recurrent.directions(0):
            linear_UG, bias_G = self._linear(tuple(part.detach() for part in weights))
            taken_CUG = linear_UG[self._place_CU] * used_CU.unsqueeze(2)
            parts = tuple(part.detach().contiguous() for part in weights)
            self._directions.append((parts, linear_UG, bias_G, taken_CUG))

    @staticmethod
    def serves() -> bool:
        """Return whether the compiled kernel is available; without it this is no faster."""
        return serves(torch.zeros(0))

    def logits(self, x_TF: NDArray[np.float32], rows: NDArray[np.intp]) -> Tensor:
        """Return the logits (N, K) of these rows as of the last step; the first is the stay."""
        with torch.inference_mode():
            x = torch.from_numpy(x_TF)
            row_N = torch.from_numpy(rows)
            h_NTH = self._states(x, row_N[1:] - 1)
            mask_NT = torch.ones(h_NTH.shape[:2], dtype=torch.bool)
            last_N1F = (x[-1] * self._keep_NF[row_N]).unsqueeze(1)
            read = self._model.read(last_N1F, mask_NT[:, -1:])
            if self._model.task.per_step:
                h_NTH, mask_NT = h_NTH[:, -1:], mask_NT[:, -1:]
            logits = self._model.logits_of(h_NTH, mask_NT, read)
            return logits[:, -1] if self._model.task.per_step else logits

    def _states(self, x_TF: Tensor, column_C: Tensor) -> Tensor:
        u_TU = self._entering(x_TF)
        u_CTU = u_TU[:, self._place_CU[column_C]].transpose(0, 1)
        rows, steps = 1 + len(column_C), len(x_TF)
        h_NTH = torch.empty(rows, steps, self._hidden * len(self._directions))
        nothing = torch.empty(rows, steps, 0)
        for place, (weights, linear_UG, bias_G, taken_CUG) in enumerate(self._directions):
            states = h_NTH.narrow(2, self._hidden * place, self._hidden)
            cell = self._model.recurrent.cell
            without = (weights[0][:, :0], *weights[1:])
            direction = Direction(cell, without, nothing, None, states, reverse=place > 0)
            begun_NTG = direction.begun_NTG
            torch.addmm(bias_G, u_TU, linear_UG, out=begun_NTG[0])
            taken = taken_CUG if len(column_C) == len(taken_CUG) else taken_CUG[column_C]
            torch.baddbmm(begun_NTG[:1], u_CTU, taken, alpha=-1, out=begun_NTG[1:])
            direction.forward()
        return self._model.recurrent.from_layer(1, h_NTH)

    def _linear(self, weights: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        """Return one direction's linear map to the gates: weights (U, G), bias (G,)."""
        model, cell = self._model, self._model.recurrent.cell
        input_GI, _, input_bias_G, hidden_bias_G = weights
        measured = len(input_GI[0]) - (
            0 if model.embedding is None else model.embedding.weight.shape[1]
        )
        by_feature, by_code = input_GI[:, :measured], input_GI[:, measured:]
        if model.projection is not None:
            projected_I = model.projection(torch.zeros(model.measured)).detach()
            input_bias_G = input_bias_G + by_feature @ projected_I
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
        """Return the first layer's linear inputs (T, U): measured features, vectors of codes."""
        model = self._model
        if model.embedding is None:
            return x_TF
        code_TM = x_TF[:, model.measured :].long()
        vector_TMW = model.embedding((code_TM - 1).clamp(min=0)) * (code_TM > 0).unsqueeze(2)
        return torch.cat([x_TF[:, : model.measured], vector_TMW.flatten(1)], dim=1)
