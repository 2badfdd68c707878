"""Model weights as one flat float32 vector, in the order of the state dict, or by name."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from consilium.shared.errors import MessageError


def to_vector(model: nn.Module) -> NDArray[np.float32]:
    """Copy the weights into a vector (D,); :func:`load_vector` restores float32 weights exactly."""
    parts = [value.detach().cpu().reshape(-1).float() for value in model.state_dict().values()]
    vector: NDArray[np.float32] = torch.cat(parts).numpy()
    return vector


def load_vector(model: nn.Module, vector: NDArray[np.float32]) -> None:
    """Write a vector (D,) into the model's weights.

    Raises:
        MessageError: the vector has another length or holds a value that is not finite.
    """
    state = model.state_dict()
    require_weights(vector, parameter_count(model))
    flat, start = torch.from_numpy(np.array(vector, dtype=np.float32)), 0
    for value in state.values():
        value.copy_(flat[start : start + value.numel()].view(value.shape))
        start += value.numel()


def require_weights(vector: NDArray[np.float32], expected: int) -> None:
    """Refuse a vector that is not ``expected`` finite weights.

    Raises:
        MessageError: it is not.
    """
    if vector.shape != (expected,):
        raise MessageError(
            f"weights: a vector of shape {vector.shape} does not fit a model of {expected} "
            "parameters; use the study and the feature list the weights were trained with"
        )
    if not np.isfinite(vector).all():
        raise MessageError(
            "weights: the vector holds a value that is not finite, every weight must be; "
            "ask for the weights again"
        )


def named_arrays(model: nn.Module) -> dict[str, NDArray[np.float32]]:
    """Return the weights by name, in the model's own memory."""
    return {name: value.detach().numpy() for name, value in model.state_dict().items()}


def parameter_count(model: nn.Module) -> int:
    """Number of parameters D, the length of :func:`to_vector`."""
    return sum(value.numel() for value in model.state_dict().values())
