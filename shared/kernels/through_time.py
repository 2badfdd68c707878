"""Calls the compiled kernel on PyTorch's tensors; it holds no state and runs without the GIL.

Everything here is batch-major.
"""

import ctypes
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from consilium.shared.kernels import buffers
from consilium.shared.kernels.build import load_kernel

CODES = {"rnn": 0, "lstm": 1, "gru": 2}
UNITS = 32  # hidden units are padded to a multiple of this, as in recurrent.c
GATES = {"rnn": 1, "lstm": 4, "gru": 3}
KINDS = {"rnn": 1, "lstm": 4, "gru": 4}  # numbers kept for each unit and step
THREAD_PRODUCTS = 8_000_000  # multiplications below which a thread costs more than it brings


class KernelMemoryError(MemoryError):
    """The kernel could not get its working memory."""


class _Sequence(ctypes.Structure):
    """``struct sequence`` of recurrent.c."""

    _fields_ = (
        *((name, ctypes.c_int32) for name in ("cell", "reverse", "threads", "add_to_input_grad")),
        *((name, ctypes.c_int64) for name in ("rows", "steps", "inputs", "hidden")),
        *((name, ctypes.c_int64) for name in ("state_step", "grad_step")),
        *((name, ctypes.c_void_p) for name in ("input_weights", "hidden_weights")),
        *((name, ctypes.c_void_p) for name in ("input_bias", "hidden_bias", "x", "keep")),
        *((name, ctypes.c_void_p) for name in ("states", "gates", "memory", "grad", "input_grad")),
    )


class _Patients(ctypes.Structure):
    """``struct patients`` of recurrent.c."""

    _fields_ = (
        ("count", ctypes.c_int64),
        ("start", ctypes.c_void_p),
        ("rows", ctypes.c_void_p),
    )


@dataclass(frozen=True)
class PatientRows:
    """Rows arranged by patient: patient p's are ``rows_N[starts[p]:starts[p + 1]]``; int64."""

    starts: Tensor
    rows_N: Tensor

    def __len__(self) -> int:
        return len(self.starts) - 1


def serves(tensor: Tensor) -> bool:
    """Whether the kernel is there and can work on such a tensor: float32 on the CPU."""
    return (
        tensor.dtype is torch.float32
        and tensor.device.type == "cpu"
        and load_kernel()[0] is not None
    )


class Direction:
    """One direction of one layer over one batch: forward, backward, then norms and sums.

    Args:
        cell: "rnn", "lstm" or "gru".
        weights: detached and contiguous, in torch's layout: (G, I), (G, H), (G,), (G,).
        x_NTI: contiguous inputs.
        keep_NT: 0 at padding, contiguous; None means that every step counts.
        states_NTH: filled by :meth:`forward`; its last axis is contiguous, rows follow rows.
        reverse: run from the last step to the first.

    Raises:
        ValueError: the weights are of another number of inputs or units; the kernel, which knows
            them by their addresses alone, would read beyond them.
    """

    def __init__(
        self,
        cell: str,
        weights: tuple[Tensor, ...],
        x_NTI: Tensor,
        keep_NT: Tensor | None,
        states_NTH: Tensor,
        *,
        reverse: bool,
    ) -> None:
        rows, steps, inputs = x_NTI.shape
        hidden = states_NTH.shape[2]
        given = [tuple(weight.shape) for weight in weights]
        wanted = GATES[cell] * hidden
        if given != [(wanted, inputs), (wanted, hidden), (wanted,), (wanted,)]:
            raise ValueError(
                f"weights of shapes {given} do not fit {inputs} inputs and {hidden} units of a "
                f"{cell} layer; use the model that was made for these inputs"
            )
        padded = -(-hidden // UNITS) * UNITS
        gates = buffers.borrow(rows * steps * padded * KINDS[cell])
        memory = buffers.borrow(rows * steps * padded) if cell == "lstm" else None
        for array in (gates, memory):
            if array is not None:
                weakref.finalize(self, buffers.give_back, array).atexit = False
        self._arrays = (weights, x_NTI, keep_NT, states_NTH, gates, memory)  # kept alive
        products = rows * steps * len(weights[0]) * (inputs + hidden)
        threads = min(torch.get_num_threads(), products // THREAD_PRODUCTS)
        self._cell = cell
        self._struct = _Sequence(
            cell=CODES[cell],
            reverse=reverse,
            threads=max(1, threads),
            rows=rows,
            steps=steps,
            inputs=inputs,
            hidden=hidden,
            state_step=states_NTH.stride(1),
            input_weights=weights[0].data_ptr(),
            hidden_weights=weights[1].data_ptr(),
            input_bias=weights[2].data_ptr(),
            hidden_bias=weights[3].data_ptr(),
            x=x_NTI.data_ptr(),
            keep=None if keep_NT is None else keep_NT.data_ptr(),
            states=states_NTH.data_ptr(),
            gates=gates.data_ptr(),
            memory=None if memory is None else memory.data_ptr(),
        )

    def forward(self) -> None:
        """Fill the states."""
        self._call("forward")

    @property
    def begun_NTG(self) -> Tensor:
        """Where :meth:`forward` finds the pre-activations of a direction without inputs (I = 0).

        What inputs and biases give, in the kernel's order; see :func:`in_kernel_order`. G counts
        padding.
        """
        rows, steps = self._struct.rows, self._struct.steps
        width = -(-self._struct.hidden // UNITS) * UNITS * KINDS[self._cell]
        return self._arrays[4][: rows * steps * width].view(rows, steps, width)

    def backward(self, grad_NTH: Tensor, input_grad_NTI: Tensor | None, *, add: bool) -> None:
        """Find the gate gradients; write the inputs' gradient, or add to it, where it is given.

        Args:
            grad_NTH: loss gradient of every state, strided as the states are.
            input_grad_NTI: contiguous.
            add: add to what is there.
        """
        self._struct.grad = grad_NTH.data_ptr()
        self._struct.grad_step = grad_NTH.stride(1)
        self._struct.add_to_input_grad = add
        if input_grad_NTI is not None:
            self._struct.input_grad = input_grad_NTI.data_ptr()
        self._call("backward")
        self._struct.grad = self._struct.input_grad = None

    @property
    def gradient_size(self) -> int:
        """Numbers that one patient's gradient takes in the kernel's own layout."""
        size: int = _function("gradient_size")(self._struct)
        return size

    @property
    def rows(self) -> int:
        """N."""
        rows: int = self._struct.rows
        return rows

    def squared_norms(self, patients: PatientRows, stored: Tensor) -> Tensor:
        """Write every patient's gradient, and return its squared norm (P,) in double precision.

        A patient's numbers depend on the patient's rows alone, not on who else is in the batch.

        Args:
            patients: which rows are each patient's.
            stored: float32, P * gradient_size numbers, filled with the patients' gradients.
        """
        square_P = torch.zeros(len(patients), dtype=torch.float64)
        self._call("measure", _pointers(patients), square_P.data_ptr(), stored.data_ptr())
        return square_P

    def sums(self) -> list[Tensor]:
        """Return the sums of the rows' gradients."""
        return self._into_torch("sum_gradients", torch.float32)

    def stored_sums(self, patients: PatientRows, weight_P: Tensor, stored: Tensor) -> list[Tensor]:
        """Return the sums, in double, of what :meth:`squared_norms` stored, times the weights.

        A patient of weight 0 adds nothing, whatever is stored. ``weight_P`` is float64.
        """
        found = _pointers(patients), weight_P.data_ptr(), stored.data_ptr()
        return self._into_torch("sum_stored", torch.float64, *found)

    def unpacked(self, gradient: Tensor) -> list[Tensor]:
        """Return one stored gradient in torch's layout."""
        return self._into_torch("unpack", torch.float32, gradient.data_ptr())

    def _into_torch(self, name: str, dtype: torch.dtype, *arguments: Any) -> list[Tensor]:
        results = [torch.empty_like(weight, dtype=dtype) for weight in self._arrays[0]]
        self._call(name, *arguments, *(result.data_ptr() for result in results))
        return results

    def _call(self, name: str, *arguments: Any) -> None:
        if _function(name)(self._struct, *arguments):
            raise KernelMemoryError("the recurrent kernel found no memory; use smaller batches")


def in_kernel_order(cell: str, hidden: int, weight_GI: Tensor, *, states: bool) -> Tensor:
    """Arrange a weight's gates as the kernel does; zero for a gate that does not use it.

    Args:
        cell: "rnn", "lstm" or "gru".
        hidden: H.
        weight_GI: (G, I) in torch's order of gates.
        states: whether the weight is for states, not inputs; the GRU's candidate keeps the two
            apart.
    """
    gates = weight_GI.view(-1, hidden, weight_GI.shape[1])
    if cell == "gru":
        reset, update, candidate = gates
        nothing = torch.zeros_like(candidate)
        last = (nothing, candidate) if states else (candidate, nothing)
        gates = torch.stack([reset, update, *last])
    padded = torch.nn.functional.pad(gates, (0, 0, 0, -hidden % UNITS))
    blocks = padded.view(len(padded), -1, UNITS, padded.shape[2])
    return blocks.transpose(0, 1).flatten(0, 2)


def _pointers(patients: PatientRows) -> _Patients:
    return _Patients(len(patients), patients.starts.data_ptr(), patients.rows_N.data_ptr())


_POINTER, _SEQUENCE = ctypes.c_void_p, ctypes.POINTER(_Sequence)
_PATIENTS = ctypes.POINTER(_Patients)
_SIGNATURES: dict[str, tuple[Any, ...]] = {
    "forward": (ctypes.c_int, _SEQUENCE),
    "backward": (ctypes.c_int, _SEQUENCE),
    "gradient_size": (ctypes.c_long, _SEQUENCE),
    "measure": (ctypes.c_int, _SEQUENCE, _PATIENTS, _POINTER, _POINTER),
    "sum_stored": (ctypes.c_int, _SEQUENCE, _PATIENTS, *[_POINTER] * 6),
    "sum_gradients": (ctypes.c_int, _SEQUENCE, *[_POINTER] * 4),
    "unpack": (ctypes.c_int, _SEQUENCE, *[_POINTER] * 5),
}


@cache
def _function(name: str) -> Callable[..., int]:
    """The kernel's function for this CPU."""
    library, status = load_kernel()
    assert library is not None, "asked without serves()"  # noqa: S101 - a defect, not a user's
    function = getattr(library, f"{name}_{status.variant}")
    function.restype, *function.argtypes = _SIGNATURES[name]
    return function  # type: ignore[no-any-return]  # ctypes leaves its functions untyped
