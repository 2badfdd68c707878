"""Per-patient gradient norms and clipped gradient sums from one ordinary backward.

A layer that is given a :class:`Bookkeeping` forms no weight gradient in its backward. It files what
each weight's gradient is made of, and once the backward is over the books give every patient's
gradient norm and the sum of the clipped gradients. A patient's clip factor scales the filed output
gradients linearly, so nothing runs twice.

Why the bound holds for any finite weights, however crafted. Let a patient's gradient be G = sum_t
g_t (outer) z_t over all of the patient's stays and steps, A = sum_t |g_t| |z_t| >= |G|, and n the
computed |G|. With hostile weights the terms may cancel, A >> |G|, and rounding, which is relative
to A, decides what is left.

1. A layer in the compiled kernel writes G once, in single precision, from the patient's rows alone;
   what is written is measured, and what is written is summed. Its rounding cannot matter.
2. Elsewhere norms and sums are in double precision, in which products of two single-precision
   numbers are exact. Sums of S of them are off by at most S u A, u = 2^-53, and squared norms by at
   most (2 S + O + I + 2) u A^2 (Higham 2002, "Accuracy and Stability", section 3.1).
3. The clip factor is clip_norm / max(clip_norm, n, A / MOST_CANCELLATION). So with 2 S + O + I at
   10^4, either A <= 1000 n, and the true norm exceeds n by less than 10^4 u 1000^2 / 2 < 10^-6 of
   it; or A / 1000 rules and the patient's part is shorter than the clip norm by far. A sum of S
   terms over all patients P is off by S u 1000 P clip norms at most: 10^-6 at S = 3000, P = 3000.
4. The sums are in double precision to the end, so that a patient changes the others' rounding by no
   more than that.
5. A patient whose gradient is not finite counts as zero: the rows of weight 0 are left out of every
   sum, not multiplied by 0. Whether there is such a patient changes nothing else.

Where A stays below 1000 |G|, the factor is that of Abadi et al. 2016.

Sources: book-keeping, Bu et al. 2022, "Differentially Private Optimization on Large Model at Small
Cost" (section 3); norms through time without gradients per sample (Gram identity), Lee & Kifer
2021, "Scaling up Differentially Private Deep Learning with Fast Per-Example Gradient Clipping".
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import Parameter

from consilium.shared.errors import PrivacyError
from consilium.shared.kernels.pieces import pieces
from consilium.shared.kernels.through_time import PatientRows

MOST_CANCELLATION = 1e3  # terms' lengths over their sum's, up to which a norm is exact to 1e-6


class LayerRecord(Protocol):
    """What a layer files: enough to measure, sum and, when asked, write out its gradients."""

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """The parameters whose gradients this record describes, each once."""

    def add_norms(self, squares_P: Tensor, terms_P: Tensor, groups: "Groups") -> None:
        """Add every patient's squared gradient norm over these parameters (float64).

        To ``terms_P`` go the summed norms of the terms that the gradient is a sum of, where they
        could cancel.
        """

    def weighted_sums(self, weight_N: Tensor) -> list[Tensor]:
        """Sum the rows' gradients times their weights, in float64; one tensor per parameter.

        A row of weight 0 adds nothing, whatever it holds.
        """

    def sums_of(self, rows: slice, weight_N: Tensor) -> list[Tensor]:
        """Like ``weighted_sums``, of a range of rows that holds whole patients.

        The result is that of books of these rows alone. ``weight_N`` is of these rows.
        """

    def per_row(self) -> list[Tensor]:
        """Every row's gradient (N, ...), one tensor per parameter; large, for checks and Opacus."""


@dataclass(frozen=True)
class Groups:
    """Rows arranged by patient: for each number of stays n, (patients (P',), rows (P', n)).

    ``alone`` says that row n is patient n, the common case, in which nothing is rearranged.
    ``patient_N`` is each row's patient, below ``patients``.
    """

    by_stays: tuple[tuple[Tensor, Tensor], ...]
    alone: bool
    patient_N: Tensor
    patients: int

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

    def on(self, device: torch.device) -> "Groups":
        """Return the same for tensors on a device."""
        by_stays = tuple((ids.to(device), rows.to(device)) for ids, rows in self.by_stays)
        return replace(self, by_stays=by_stays, patient_N=self.patient_N.to(device))

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
            single = ((everyone, everyone.unsqueeze(1)),)
            return Groups(single, alone=True, patient_N=patient_N, patients=patients)
    ids, counts = torch.unique(patient_N, return_counts=True)
    order = torch.argsort(patient_N, stable=True)
    starts = counts.cumsum(0) - counts
    by_stays = []
    for stays in torch.unique(counts).tolist():
        chosen = counts == stays
        places = starts[chosen].unsqueeze(1) + torch.arange(stays, device=patient_N.device)
        by_stays.append((ids[chosen], order[places]))
    return Groups(tuple(by_stays), alone=False, patient_N=patient_N, patients=patients)


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

    def add_norms(self, squares_P: Tensor, terms_P: Tensor, groups: Groups) -> None:
        """See :class:`LayerRecord`."""
        gathered = [groups.gather(values) for _, values in self.inputs]
        for (patients, grad), *inputs in zip(groups.gather(self.grad_NTO), *gathered, strict=True):
            squares, terms = outer_norms(
                grad, [values for _, values in inputs], biases=len(self.biases)
            )
            squares_P[patients] += squares
            terms_P[patients] += terms

    def weighted_sums(self, weight_N: Tensor) -> list[Tensor]:
        """See :class:`LayerRecord`."""
        weight_N11 = weight_N.double()[:, None, None]
        sums = [torch.zeros(weight.shape, **_like(self.grad_NTO)) for weight, _ in self.inputs]
        bias = torch.zeros(self.grad_NTO.shape[2], **_like(self.grad_NTO))
        size = self.grad_NTO.shape[1] * sum(self.inputs[0][0].shape)
        for piece in pieces(self.grad_NTO, len(self.grad_NTO), size):
            weight = weight_N11[piece]
            flat = _weighed(self.grad_NTO[piece], weight).flatten(0, 1)
            bias += flat.sum(0)
            for total, (_, values) in zip(sums, self.inputs, strict=True):
                total.addmm_(flat.t(), _where_counted(values[piece], weight).flatten(0, 1))
        return sums + [bias.clone() for _ in self.biases]  # callers may change results in place

    def sums_of(self, rows: slice, weight_N: Tensor) -> list[Tensor]:
        """See :class:`LayerRecord`."""
        inputs = tuple((weight, values[rows]) for weight, values in self.inputs)
        return Outer(self.grad_NTO[rows], inputs, self.biases).weighted_sums(weight_N)

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

    def add_norms(self, squares_P: Tensor, terms_P: Tensor, groups: Groups) -> None:
        """See :class:`LayerRecord`; sums up each line that a patient reads, however often."""
        flat = self.grad_NTO.double().flatten(0, 1)
        place_NT = groups.patient_N.unsqueeze(1) * len(self.table) + self.token_NT
        lines, line_of = torch.unique(place_NT, return_inverse=True)
        written = flat.new_zeros(len(lines), flat.shape[1])
        written.index_add_(0, line_of.flatten(), flat)
        squares_P.index_add_(0, lines // len(self.table), written.square_().sum(1))
        terms_P.index_add_(0, groups.patient_N, flat.norm(dim=1).view(place_NT.shape).sum(1))

    def weighted_sums(self, weight_N: Tensor) -> list[Tensor]:
        """See :class:`LayerRecord`."""
        grad = _weighed(self.grad_NTO, weight_N.double()[:, None, None]).flatten(0, 1)
        total = torch.zeros(self.table.shape, **_like(self.table))
        return [total.index_add_(0, self.token_NT.flatten(), grad)]

    def sums_of(self, rows: slice, weight_N: Tensor) -> list[Tensor]:
        """See :class:`LayerRecord`."""
        return Lookup(self.grad_NTO[rows], self.token_NT[rows], self.table).weighted_sums(weight_N)

    def per_row(self) -> list[Tensor]:
        """See :class:`LayerRecord`."""
        every = self.grad_NTO.new_zeros(len(self.grad_NTO), *self.table.shape)
        index = self.token_NT.unsqueeze(2).expand_as(self.grad_NTO)
        return [every.scatter_add_(1, index, self.grad_NTO)]


@dataclass(frozen=True)
class Direct:
    """A parameter whose row gradients are simply kept: ``grad_ND``, D numbers of any shape."""

    parameter: Parameter
    grad_ND: Tensor

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """The one parameter."""
        return (self.parameter,)

    def add_norms(self, squares_P: Tensor, terms_P: Tensor, groups: Groups) -> None:
        """See :class:`LayerRecord`."""
        grad_ND = self.grad_ND.double()
        summed = grad_ND.new_zeros(groups.patients, grad_ND.shape[1])
        summed.index_add_(0, groups.patient_N, grad_ND)
        squares_P += summed.square_().sum(1)
        terms_P.index_add_(0, groups.patient_N, grad_ND.norm(dim=1))

    def weighted_sums(self, weight_N: Tensor) -> list[Tensor]:
        """See :class:`LayerRecord`."""
        summed_D = _weighed(self.grad_ND, weight_N.double()[:, None]).sum(0)
        return [summed_D.view(self.parameter.shape)]

    def sums_of(self, rows: slice, weight_N: Tensor) -> list[Tensor]:
        """See :class:`LayerRecord`."""
        return Direct(self.parameter, self.grad_ND[rows]).weighted_sums(weight_N)

    def per_row(self) -> list[Tensor]:
        """See :class:`LayerRecord`."""
        return [self.grad_ND.view(len(self.grad_ND), *self.parameter.shape)]


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

        In float64; not finite where the gradient is not.
        """
        return self._measured(patient_N, patients)[0]

    def clipped_sums(
        self, parameters: Iterable[Parameter], patient_N: Tensor, patients: int, clip_norm: float
    ) -> tuple[list[Tensor], Tensor]:
        """Return the sum of the clipped patient gradients per parameter, and the norms (P,).

        Both are float64. The gradients' norms are those before clipping, infinite or NaN where a
        gradient is not finite.

        Guarantee: the sums are finite, and each patient's part of them has L2 norm at most
        ``clip_norm`` * (1 + 1e-5), for any filed numbers; zero if one of them is not finite.

        Raises:
            PrivacyError: a parameter is not in the books, or is there more than once.
        """
        factor_P, norms_P = self._factors(patient_N, patients, clip_norm)
        return self.weighted_sums(parameters, factor_P[patient_N]), norms_P

    def clipped_sums_by_span(
        self,
        parameters: Iterable[Parameter],
        patient_N: Tensor,
        patients: int,
        clip_norm: float,
        spans: Iterable[slice],
    ) -> list[list[Tensor]]:
        """Return what :meth:`clipped_sums` sums, for each span of rows that holds whole patients.

        Guarantee: those of each span are as :meth:`clipped_sums` guarantees them.

        Raises:
            PrivacyError: a parameter is not in the books, or is there more than once.
        """
        factor_P, _ = self._factors(patient_N, patients, clip_norm)
        parameters, weight_N = list(parameters), factor_P[patient_N]
        sums = []
        for rows in spans:
            weight = weight_N[rows]
            found = self._found(record.sums_of(rows, weight) for record in self._records)
            sums.append([self._pick(found, parameter) for parameter in parameters])
        return sums

    def _factors(self, patient_N: Tensor, patients: int, clip_norm: float) -> tuple[Tensor, Tensor]:
        """Return by what each patient's gradient is multiplied (P,), and its norm (P,)."""
        norms_P, terms_P = self._measured(patient_N, patients)
        longest_P = torch.maximum(norms_P, terms_P / MOST_CANCELLATION)
        factor_P = torch.where(torch.isfinite(longest_P), clip_norm / longest_P.clamp(clip_norm), 0)
        return factor_P, norms_P

    def weighted_sums(self, parameters: Iterable[Parameter], weight_N: Tensor) -> list[Tensor]:
        """Return sum over rows of weight times gradient, one tensor per parameter, in their order.

        In float64; a row of weight 0 adds nothing, also where it is not finite.

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

    def _measured(self, patient_N: Tensor, patients: int) -> tuple[Tensor, Tensor]:
        """Norms (P,), and the lengths (P,) of the terms that they are norms of the sums of."""
        if not self._records:
            raise PrivacyError(
                "books: 0 records were filed, at least 1 is needed; run the backward of a loss "
                "whose forward was given these books"
            )
        groups = group_rows(patient_N, patients)
        squares_P = torch.zeros(patients, **_like(self._records[0].parameters[0]))
        terms_P = torch.zeros_like(squares_P)
        for record in self._records:
            record.add_norms(squares_P, terms_P, groups)
        return squares_P.sqrt_(), terms_P

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


def outer_norms(grad_PTO: Tensor, inputs: list[Tensor], *, biases: int) -> tuple[Tensor, Tensor]:
    """Squared norms (P,) of sum_t grad_t (outer) [input_t, 1 for each bias], and of its terms.

    The second result (P,) is sum_t |grad_t| |[input_t, 1 for each bias]|. Both are float64.

    Takes the cheaper of two ways: write each patient's gradient and square it (T*O*I products), or
    the Gram identity sum_ts <grad_t, grad_s> (<input_t, input_s> + biases) (T*T*(O+I) products).
    """
    patients, steps, outputs = grad_PTO.shape
    width = sum(values.shape[2] for values in inputs)
    squares_P = torch.empty(patients, **_like(grad_PTO))
    terms_P = torch.empty_like(squares_P)
    written = steps * (outputs + width) >= outputs * width
    size = outputs * width if written else 2 * steps * steps
    for piece in pieces(grad_PTO, patients, size + steps * (outputs + width)):
        grad = grad_PTO[piece].double()
        ones = grad.new_full((1, 1, 1), math.sqrt(biases)).expand(len(grad), steps, 1)
        every = torch.cat([*(values[piece].double() for values in inputs), ones], dim=2)
        terms_P[piece] = (grad.norm(dim=2) * every.norm(dim=2)).sum(1)
        if steps == 1:
            squares_P[piece] = terms_P[piece].square()
        elif written:
            squares_P[piece] = (grad.transpose(1, 2) @ every).square_().sum(2).sum(1)
        else:
            gram = (grad @ grad.transpose(1, 2)).mul_(every @ every.transpose(1, 2))
            squares_P[piece] = gram.sum(2).sum(1).clamp_(min=0)
    return squares_P, terms_P


def _like(tensor: Tensor) -> dict[str, Any]:
    """Where and how to keep sums of such a tensor."""
    return {"dtype": torch.float64, "device": tensor.device}


def _weighed(values: Tensor, weight: Tensor) -> Tensor:
    """Values times weight in float64; 0 where the weight is 0, whatever the value."""
    return torch.where(weight == 0, 0.0, values * weight)


def _where_counted(values: Tensor, weight: Tensor) -> Tensor:
    """Values in float64; 0 where the weight is 0, whatever the value."""
    return torch.where(weight == 0, 0.0, values.double())
