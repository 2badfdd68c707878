"""Per-patient gradient norms and clipped gradient sums from one ordinary backward.

A layer that is given a :class:`Bookkeeping` forms no weight gradient in its backward. It files what
each weight's gradient is made of, and once the backward is over the books give every patient's
gradient norm and the sum of the clipped gradients, without keeping a gradient per patient. A
patient's clip factor scales the filed output gradients linearly, so nothing runs twice.

Sources: book-keeping, Bu et al. 2022, "Differentially Private Optimization on Large Model at Small
Cost" (section 3); norms through time without gradients per sample (Gram identity), Lee & Kifer
2021, "Scaling up Differentially Private Deep Learning with Fast Per-Example Gradient Clipping".
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import Parameter

from consilium.shared.errors import PrivacyError
from consilium.shared.kernels.through_time import PatientRows

PIECE_ELEMENTS = 1 << 20  # work on about 4 MB of float32 at a time, so that it stays in cache
CANCELLATION = 1e-2  # below this share of its bound a Gram sum has lost digits: measure again


class LayerRecord(Protocol):
    """What a layer files: enough to measure, sum and, when asked, write out its gradients."""

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """The parameters whose gradients this record describes, each once."""

    def add_squared_norms(self, total_P: Tensor, groups: "Groups") -> None:
        """Add every patient's squared gradient norm over these parameters."""

    def weighted_sums(self, weight_N: Tensor) -> list[Tensor]:
        """Sum the rows' gradients, each times its weight; one tensor per parameter."""

    def per_row(self) -> list[Tensor]:
        """Every row's gradient (N, ...), one tensor per parameter; large, for checks and Opacus."""


@dataclass(frozen=True)
class Groups:
    """Rows arranged by patient: for each number of stays n, (patients (P',), rows (P', n)).

    ``alone`` says that row n is patient n, the common case, in which nothing is rearranged.
    """

    by_stays: tuple[tuple[Tensor, Tensor], ...]
    alone: bool

    @cached_property
    def by_patient(self) -> tuple[Tensor, PatientRows]:
        """The patients (P',), and the rows of each, in that order."""
        first = torch.zeros(1, dtype=torch.int64)
        if not self.by_stays:
            return first[:0], PatientRows(first, first[:0])
        if self.alone:
            return self.by_stays[0][0], PatientRows(
                torch.arange(len(self.by_stays[0][0]) + 1), self.by_stays[0][0]
            )
        stays = [rows.new_full((len(rows),), rows.shape[1]) for _, rows in self.by_stays]
        return torch.cat([patients for patients, _ in self.by_stays]), PatientRows(
            torch.cat([first, torch.cat(stays).cumsum(0)]),
            torch.cat([rows.flatten() for _, rows in self.by_stays]),
        )

    def gather(self, values_N: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (patients (P',), values (P', n * T, ...)) with a patient's stays end to end."""
        for patients, rows in self.by_stays:
            if self.alone:
                yield patients, values_N
            else:
                picked = values_N[rows.flatten()]
                yield patients, picked.reshape(len(patients), -1, *values_N.shape[2:])


def group_rows(patient_N: Tensor, patients: int) -> Groups:
    """Arrange rows by patient; a patient without rows is left out (its gradient is zero)."""
    if len(patient_N) == patients:
        everyone = torch.arange(patients, device=patient_N.device)
        if torch.equal(patient_N, everyone):
            return Groups(((everyone, everyone.unsqueeze(1)),), alone=True)
    ids, counts = torch.unique(patient_N, return_counts=True)
    order = torch.argsort(patient_N, stable=True)
    starts = counts.cumsum(0) - counts
    by_stays = []
    for stays in torch.unique(counts).tolist():
        chosen = counts == stays
        places = starts[chosen].unsqueeze(1) + torch.arange(stays, device=patient_N.device)
        by_stays.append((ids[chosen], order[places]))
    return Groups(tuple(by_stays), alone=False)


@dataclass(frozen=True)
class Outer:
    """Weights whose row gradient is sum_t grad_t (outer) input_t, and biases: sum_t grad_t.

    ``inputs`` pairs each weight (O, I) with its inputs (N, T, I); ``grad_NTO`` is shared by them.
    """

    grad_NTO: Tensor
    inputs: tuple[tuple[Parameter, Tensor], ...]
    biases: tuple[Parameter, ...] = ()

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """Weights first, then biases."""
        return (*(weight for weight, _ in self.inputs), *self.biases)

    def add_squared_norms(self, total_P: Tensor, groups: Groups) -> None:
        """See :class:`LayerRecord`."""
        gathered = [groups.gather(values) for _, values in self.inputs]
        for (patients, grad), *inputs in zip(groups.gather(self.grad_NTO), *gathered, strict=True):
            total_P[patients] += outer_squared_norms(
                grad, [values for _, values in inputs], biases=len(self.biases)
            )

    def weighted_sums(self, weight_N: Tensor) -> list[Tensor]:
        """See :class:`LayerRecord`."""
        grad, inputs = self.grad_NTO, [values for _, values in self.inputs]
        swap = not grad.is_contiguous()  # time-major storage: flatten in storage order, no copy
        weight_NTO = weight_N[:, None, None].expand(-1, grad.shape[1], 1)
        weight = _flatten(weight_NTO, swap=swap)
        flat = _flatten(grad, swap=swap)
        if sum(values.shape[2] for values in inputs) < grad.shape[2]:  # weigh the smaller side
            sums = [flat.t() @ (_flatten(values, swap=swap) * weight) for values in inputs]
        else:
            flat, weight = flat * weight, torch.ones_like(weight)
            sums = [flat.t() @ _flatten(values, swap=swap) for values in inputs]
        bias = (weight.t() @ flat).squeeze(0)
        return sums + [bias.clone() for _ in self.biases]  # callers may change results in place

    def per_row(self) -> list[Tensor]:
        """See :class:`LayerRecord`."""
        weights = [self.grad_NTO.transpose(1, 2) @ values for _, values in self.inputs]
        return weights + [self.grad_NTO.sum(1)] * len(self.biases)


@dataclass(frozen=True)
class Lookup:
    """An embedding table (vocabulary, O): the row gradient is sum_t of grad_t at line token_t."""

    grad_NTO: Tensor
    token_NT: Tensor
    table: Parameter

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """The table."""
        return (self.table,)

    def add_squared_norms(self, total_P: Tensor, groups: Groups) -> None:
        """See :class:`LayerRecord`; a Gram sum over the pairs of steps that read the same line."""
        pairs = zip(groups.gather(self.grad_NTO), groups.gather(self.token_NT), strict=True)
        for (patients, grad), (_, token) in pairs:
            size = grad.shape[1] ** 2
            for piece in _pieces(len(grad), size):
                same = token[piece].unsqueeze(2) == token[piece].unsqueeze(1)
                gram = grad[piece] @ grad[piece].transpose(1, 2)
                total_P[patients[piece]] += (gram * same).sum((1, 2)).clamp_(min=0)

    def weighted_sums(self, weight_N: Tensor) -> list[Tensor]:
        """See :class:`LayerRecord`."""
        grad = (self.grad_NTO * weight_N[:, None, None]).flatten(0, 1)
        return [torch.zeros_like(self.table).index_add_(0, self.token_NT.flatten(), grad)]

    def per_row(self) -> list[Tensor]:
        """See :class:`LayerRecord`."""
        every = self.grad_NTO.new_zeros(len(self.grad_NTO), *self.table.shape)
        index = self.token_NT.unsqueeze(2).expand_as(self.grad_NTO)
        return [every.scatter_add_(1, index, self.grad_NTO)]


@dataclass(frozen=True)
class Direct:
    """A small parameter whose row gradients are simply kept: ``grad_ND``."""

    parameter: Parameter
    grad_ND: Tensor

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """The one parameter."""
        return (self.parameter,)

    def add_squared_norms(self, total_P: Tensor, groups: Groups) -> None:
        """See :class:`LayerRecord`."""
        for patients, grad in groups.gather(self.grad_ND.unsqueeze(1)):
            total_P[patients] += grad.sum(1).square().sum(1)

    def weighted_sums(self, weight_N: Tensor) -> list[Tensor]:
        """See :class:`LayerRecord`."""
        return [weight_N @ self.grad_ND]

    def per_row(self) -> list[Tensor]:
        """See :class:`LayerRecord`."""
        return [self.grad_ND]


class Bookkeeping:
    """The books of one backward: pass it to every layer, run the backward, then ask.

    Each trainable parameter must be filed exactly once; :meth:`clipped_sums` refuses otherwise, for
    a gradient that is not in the books would leave unclipped.
    """

    def __init__(self) -> None:
        self._records: list[LayerRecord] = []

    def file(self, record: LayerRecord) -> None:
        """Add a layer's record; called by layers from their backward."""
        self._records.append(record)

    def norms(self, patient_N: Tensor, patients: int) -> Tensor:
        """Return every patient's gradient norm (P,): the norm of the sum over the patient's rows.

        Args:
            patient_N: which patient, 0 to ``patients`` - 1, each row of the batch belongs to.
            patients: number of patients P in the batch.

        Relative error at most about 1e-5 in float32.
        """
        groups = group_rows(patient_N, patients)
        total_P = self._like().new_zeros(patients)
        for record in self._records:
            record.add_squared_norms(total_P, groups)
        return total_P.sqrt_()

    def clipped_sums(
        self, parameters: Iterable[Parameter], patient_N: Tensor, patients: int, clip_norm: float
    ) -> tuple[list[Tensor], Tensor]:
        """Return the sum of the clipped patient gradients per parameter, and the norms (P,).

        Guarantee: each patient's part of the sum has L2 norm at most ``clip_norm``, to rounding.

        Raises:
            PrivacyError: a parameter is not in the books, or is there more than once; or a norm is
                not finite.
        """
        norms_P = self.norms(patient_N, patients)
        if not bool(torch.isfinite(norms_P).all()):
            raise PrivacyError(
                "books: a gradient norm is not finite, a finite one is needed to clip it; lower "
                "[training] learning_rate or check the features for non-finite values"
            )
        factor_P = clip_norm / norms_P.clamp(min=clip_norm)
        return self.weighted_sums(parameters, factor_P[patient_N]), norms_P

    def weighted_sums(self, parameters: Iterable[Parameter], weight_N: Tensor) -> list[Tensor]:
        """Return sum over rows of weight times gradient, one tensor per parameter, in their order.

        Raises:
            PrivacyError: a parameter is not in the books, or is there more than once.
        """
        found = self._found(record.weighted_sums(weight_N) for record in self._records)
        return [self._pick(found, parameter) for parameter in parameters]

    def per_row(self, parameters: Iterable[Parameter]) -> list[Tensor]:
        """Return every row's gradient (N, ...) per parameter: large, for checks and for Opacus.

        Raises:
            PrivacyError: a parameter is not in the books, or is there more than once.
        """
        found = self._found(record.per_row() for record in self._records)
        return [self._pick(found, parameter) for parameter in parameters]

    def _like(self) -> Tensor:
        if not self._records:
            raise PrivacyError(
                "books: 0 records were filed, at least 1 is needed; run the backward of a loss "
                "whose forward was given these books"
            )
        return self._records[0].parameters[0].detach()

    def _found(self, tensors: Iterable[list[Tensor]]) -> dict[Parameter, Tensor]:
        found: dict[Parameter, Tensor] = {}
        for record, parts in zip(self._records, tensors, strict=True):
            for parameter, part in zip(record.parameters, parts, strict=True):
                if parameter in found:
                    raise PrivacyError(
                        f"books: a parameter of shape {tuple(parameter.shape)} was filed twice, at "
                        "most once is allowed; use one forward per book and no shared weights"
                    )
                found[parameter] = part
        return found

    @staticmethod
    def _pick(found: dict[Parameter, Tensor], parameter: Parameter) -> Tensor:
        if parameter not in found:
            raise PrivacyError(
                f"books: a parameter of shape {tuple(parameter.shape)} was not filed, so its "
                "gradient would leave unclipped; give the books to every layer"
            )
        return found[parameter]


def outer_squared_norms(grad_PTO: Tensor, inputs: list[Tensor], *, biases: int) -> Tensor:
    """Squared norms (P,) of sum_t grad_t (outer) [input_t, 1 for each bias].

    Takes the cheaper of two ways: write each patient's gradient and square it (T*O*I products), or
    the Gram identity sum_ts <grad_t, grad_s> (<input_t, input_s> + biases) (T*T*(O+I) products).
    """
    patients, steps, outputs = grad_PTO.shape
    width = sum(values.shape[2] for values in inputs)
    if steps == 1:
        size = sum((values.square().sum((1, 2)) for values in inputs), grad_PTO.new_tensor(biases))
        return grad_PTO.square().sum((1, 2)) * size
    if steps * (outputs + width) >= outputs * width:
        return _written_squared_norms(grad_PTO, inputs, biases)
    norms_P = grad_PTO.new_empty(patients)
    for piece in _pieces(patients, 2 * steps * steps):
        norms_P[piece] = _gram_squared_norms(
            grad_PTO[piece], [values[piece] for values in inputs], biases
        )
    return norms_P


def _written_squared_norms(grad_PTO: Tensor, inputs: list[Tensor], biases: int) -> Tensor:
    """Write the patients' gradients, a few at a time, and square them.

    All inputs and the biases go into one product: narrow ones of their own are slow.
    """
    patients, steps, outputs = grad_PTO.shape
    norms_P = grad_PTO.new_empty(patients)
    ones_PT1 = grad_PTO.new_full((1, 1, 1), math.sqrt(biases)).expand(patients, steps, 1)
    every_PTI = torch.cat([*inputs, ones_PT1] if biases else inputs, dim=2)
    for piece in _pieces(patients, outputs * every_PTI.shape[2]):
        written = grad_PTO[piece].transpose(1, 2) @ every_PTI[piece]
        norms_P[piece] = written.square_().sum((1, 2))
    return norms_P


def _gram_squared_norms(grad_PTO: Tensor, inputs: list[Tensor], biases: int) -> Tensor:
    """The Gram identity; patients whose steps nearly cancel are measured again, written out."""
    of_grads = grad_PTO @ grad_PTO.transpose(1, 2)
    of_inputs = sum(
        (values @ values.transpose(1, 2) for values in inputs), grad_PTO.new_tensor(biases)
    )
    products = of_grads.mul_(of_inputs)
    norms_P = products.sum((1, 2))
    bound_P = products.diagonal(dim1=1, dim2=2).clamp(min=0).sqrt().sum(1).square()
    weak = (norms_P < CANCELLATION * bound_P).nonzero().flatten()
    if len(weak):
        norms_P[weak] = _written_squared_norms(
            grad_PTO[weak], [values[weak] for values in inputs], biases
        )
    return norms_P


def _pieces(count: int, elements_each: int) -> Iterator[slice]:
    """Slices of 0..count that hold about ``PIECE_ELEMENTS`` elements each."""
    size = max(1, PIECE_ELEMENTS // max(1, elements_each))
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))


def _flatten(values_NTI: Tensor, *, swap: bool) -> Tensor:
    """All steps of all rows, (N*T, I), batch-major or time-major."""
    ordered = values_NTI.transpose(0, 1) if swap else values_NTI
    return ordered.reshape(-1, values_NTI.shape[2])
