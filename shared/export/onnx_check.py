"""Whether an ONNX model scores as the model it was made from, on random rows of many lengths."""

import numpy as np
import onnxruntime
import torch

from consilium.shared.model.branch import Branch

ROWS = 16


def largest_difference(content: bytes, model: Branch, steps: int) -> float:
    """Return the largest difference of a score; in regression in the target's spreads.

    Args:
        content: what :func:`consilium.shared.export.onnx_graph.to_onnx` returned.
        model: the model it was made from.
        steps: T of the rows; the first row has all, the others fewer, and NaN at padding.
    """
    generator = torch.Generator().manual_seed(0)
    x_NTF = 2 * torch.randn((ROWS, steps, model.features), generator=generator)
    if model.codes:
        most = model.lines + 1
        codes = torch.randint(0, most, (ROWS, steps, model.codes), generator=generator)
        x_NTF[..., model.measured :] = codes.float()
    length_N = torch.randint(1, steps + 1, (ROWS,), generator=generator)
    length_N[0] = steps
    mask_NT = torch.arange(steps)[None] < length_N[:, None]
    x_NTF[~mask_NT] = torch.nan
    with torch.no_grad():
        ours = model.scores(model(x_NTF, mask_NT)).numpy()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    (theirs,) = session.run(["scores"], {"x": x_NTF.numpy(), "mask": mask_NT.numpy()})
    distance = np.abs(theirs - ours) / model.task.spread
    if model.task.per_step:
        distance = distance[mask_NT.numpy()]
    return float(distance.max())
