"""Explains a model's output for one stay, by variable and step; the result stays at this site.

Three views that can be compared:

- **Integrated gradients** (Sundararajan, Taly and Yan, ICML 2017), along the path from all inputs
  at 0 to this stay's, by Gauss-Legendre quadrature. The attributions of a variable's inputs are
  added up. They belong to the step in which the model reads the inputs, so a value carried forward
  counts in every step to which it is carried. What the model reads beside the steps (the inputs of
  linear paths, summaries of the past) also starts from 0. So a linear path's part is exact: weight
  times input. "Never measured" is one of its inputs, so absence can be a reason of its own.
  Guarantee: attributions sum to the change along the path, up to ``gap``, which is measured, and
  kept small by splitting the path. Codes cannot be interpolated; they are the same all along it.
- **Occlusion**: what would change if the variable had never been measured, as in the streaming
  scorer.
- **Attention**: the weight of each step, if the model pools by attention.

Effects are in log-odds; in regression, in the target's unit.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from consilium.client.explain.answers import effect_scale
from consilium.client.explain.stay_stream import StreamedModel
from consilium.client.records.running_features import Layout
from consilium.shared.export.signed_model import Trained

POINTS, FIRST_PIECES, MOST_HALVINGS = 16, 4, 8
CLOSE = 0.002
ROUNDING = 1e-5  # float32 rounding error of the change over a piece
Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, repr=False)
class Explanation:
    """Explanation of one output of one stay, as of the stay's last step.

    Attributes:
        value: the output, a risk or a quantity.
        columns: names of the variables, then of the columns of codes.
        measured_C: whether each column was ever measured.
        effect_TC: integrated gradients; 0 for codes.
        gap: difference between their sum and the change that they explain.
        occlusion_C: what each column adds: the output minus the output without the column.
        attention_T: weight of each step; None without attention.
    """

    value: float
    columns: tuple[str, ...]
    measured_C: NDArray[np.bool_]
    effect_TC: Array
    gap: float
    occlusion_C: Array
    attention_T: Array | None

    def __repr__(self) -> str:
        return "Explanation(...)"


def explain(trained: Trained, x_TF: Tensor, *, output: int) -> Explanation:
    """Explain an output of a stay.

    Args:
        trained: the model.
        x_TF: the stay's inputs up to its last observed step, as ``to_tensors`` made them.
        output: which of the model's outputs.
    """
    model, layout = trained.model.eval(), Layout(trained.study)
    measured_C = np.array(
        [bool((x_TF[:, columns] != 0).any()) for columns in layout.without_each()[1:] == 0]
    )
    logits = StreamedModel(model, layout, reasons=True).read_window(x_TF.numpy(), measured_C)
    scale_N = effect_scale(model, torch.from_numpy(logits))[:, output].numpy()
    effect_TJ, gap = integrated_gradients(trained, x_TF, output=output)
    attention_T = None
    weight_NT = model.attended(x_TF[None], _all_true(x_TF[None]))
    if weight_NT is not None:
        attention_T = weight_NT[0].double().numpy()
    return Explanation(
        value=float(model.scores(torch.from_numpy(logits[0]))[output]),
        columns=layout.names,
        measured_C=measured_C,
        effect_TC=effect_TJ @ inputs_of_columns(trained).T,
        gap=gap,
        occlusion_C=scale_N[0] - scale_N[1:],
        attention_T=attention_T,
    )


def inputs_of_columns(trained: Trained) -> Array:
    """Return (C, J): 1 where an attribution of :func:`integrated_gradients` is the column's."""
    model, layout = trained.model, Layout(trained.study)
    of_CF = (layout.without_each()[1:] == 0).astype(np.float64)
    every_CJ: Array = np.concatenate([of_CF, of_CF[:, model.read_from]], axis=1)
    return every_CJ


def integrated_gradients(
    trained: Trained, x_TF: Tensor, *, output: int, halvings: int = MOST_HALVINGS
) -> tuple[Array, float]:
    """Return attributions (T, J) of all inputs, and the error of their sum.

    The attributions of a piece of the path should sum to the output's change over the piece, which
    is known. A piece that misses it by more than its share of the allowed error is halved, up to
    ``halvings`` times; steep parts of a recurrent network's path need that. The allowed error
    is ``CLOSE`` times the whole change, or times one (in regression one spread) if that is more.

    Args:
        trained: the model.
        x_TF: one stay's inputs.
        output: which of the model's outputs.
        halvings: how often a piece may be halved; with 0 the work does not depend on the inputs.
    """
    x_TJ = torch.cat([x_TF, _read(trained, x_TF)], dim=1)
    with torch.no_grad():
        before, after = _reached(trained, _between(trained, x_TJ, np.array([0.0, 1.0])), output)
    change = float(after - before)
    allowed = CLOSE * max(trained.study.task.spread, abs(change))
    effect_TJ = np.zeros(x_TJ.shape)
    pieces = [(n / FIRST_PIECES, 1 / FIRST_PIECES) for n in range(FIRST_PIECES)]
    for halved in range(halvings + 1):
        missing = []
        for start, width in pieces:
            piece_TJ, gap = _piece(trained, x_TJ, output, start, width)
            if gap > max(allowed * width, ROUNDING) and halved < halvings:
                missing += [(start, width / 2), (start + width / 2, width / 2)]
            else:
                effect_TJ += piece_TJ
        pieces = missing
    return effect_TJ, abs(float(effect_TJ.sum()) - change)


def _piece(
    trained: Trained, x_TJ: Tensor, output: int, start: float, width: float
) -> tuple[Array, float]:
    """Return attributions (T, J) of a piece of the path, and the error of their sum."""
    codes = slice(trained.model.measured, trained.model.features)
    place_Q, weight_Q = np.polynomial.legendre.leggauss(POINTS)
    along = np.concatenate([start + width * (place_Q + 1) / 2, [start, start + width]])
    points_QTJ = _between(trained, x_TJ, along).requires_grad_()
    reached_Q = _reached(trained, points_QTJ, output)
    (gradient_QTJ,) = torch.autograd.grad(reached_Q[:POINTS].sum(), points_QTJ)
    weights = torch.from_numpy(weight_Q * width / 2)[:, None, None]
    mean_TJ = (weights * gradient_QTJ[:POINTS].double()).sum(0)
    effect_TJ = (mean_TJ * x_TJ).numpy()
    effect_TJ[:, codes] = 0.0
    before, after = reached_Q[POINTS:].detach().double().tolist()
    return effect_TJ, abs(float(effect_TJ.sum()) - (after - before))


def _between(trained: Trained, x_TJ: Tensor, along_Q: Array) -> Tensor:
    """Return all inputs (Q, T, J) at these fractions of the path; codes are never scaled."""
    codes = slice(trained.model.measured, trained.model.features)
    points_QTJ = torch.from_numpy(along_Q).float()[:, None, None] * x_TJ
    points_QTJ[:, :, codes] = x_TJ[:, codes]
    return points_QTJ


def _read(trained: Trained, x_TF: Tensor) -> Tensor:
    """Return what the model reads beside the steps, at each step (T, I); I may be 0."""
    model = trained.model
    read = model.read(x_TF[None], _all_true(x_TF[None]))[0]
    if model.task.per_step:
        return read
    return torch.cat([read.new_zeros(len(x_TF) - 1, len(read)), read[None]])


def _reached(trained: Trained, x_NTJ: Tensor, output: int) -> Tensor:
    """Return the output (N,) as of the last step, on the scale of effects."""
    model = trained.model
    x_NTF, read = x_NTJ[..., : model.features], x_NTJ[..., model.features :]
    logits = model(x_NTF, _all_true(x_NTF), read=read if model.task.per_step else read[:, -1])
    if model.task.per_step:
        logits = logits[:, -1]
    return effect_scale(model, logits)[:, output]


def _all_true(x_NTF: Tensor) -> Tensor:
    return torch.ones(x_NTF.shape[:2], dtype=torch.bool)
