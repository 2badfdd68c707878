"""A network of an installed package: a ``torch.nn.Module`` that Consilium did not write.

docs/models-from-outside.md says what its author writes. Here it becomes a :class:`.Branch`, so that
training, evaluation, explanation and all else treat it as any other network.

With books, and without gradients, every stay goes through the module alone, its padding cut off.
So no stay's numbers can depend on another's, whatever the module and its weights do; and a
patient's gradient is written from the patient's rows alone, which is what the clip bound rests on
(:mod:`consilium.shared.model.bookkeeping`). A stay on which the module fails counts as a stay of
which it says nothing: whether it is there changes nothing else.
"""

import logging
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.autograd.function import once_differentiable

from consilium.shared.errors import StudyError
from consilium.shared.files.installed_packages import (
    load,
    only_entry,
    package_digest,
    package_of,
    require_loaded_as,
)
from consilium.shared.model.bookkeeping import Bookkeeping, Direct
from consilium.shared.model.branch import Branch, Inputs, begin_at
from consilium.shared.model.layers import Linear, row_by_row
from consilium.shared.study.branches import ModuleBranch
from consilium.shared.study.definition import Study
from consilium.shared.study.input_names import UNKNOWN_TOKEN
from consilium.shared.study.training import Task

GROUP = "consilium.models"
WHAT = "module"

log = logging.getLogger(__name__)
_drawing = threading.Lock()  # torch has one random state a process, and modules draw from it


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a package is asked for: a module that maps such sequences to such logits.

    Attributes:
        variables: numbers V of a step, of the series and then of the static variables.
        codes: columns of codes M of a step.
        vocabulary: what a code's number is below; 0 is no code, 1 an unknown one.
        outputs: logits K.
        per_step: whether logits are wanted of every step.
        steps: most steps T of a stay.
        settings: what the study says to the module.
    """

    variables: int
    codes: int
    vocabulary: int
    outputs: int
    per_step: bool
    steps: int
    settings: Mapping[str, bool | int | float | str]


def require_modules(study: Study) -> None:
    """Refuse a study one of whose modules is not installed here as it is named; loads nothing.

    Raises:
        StudyError: it is not installed, or in another version or with another digest.
    """
    for module in study.model.modules:
        _entry_of(module)


def _entry_of(module: ModuleBranch) -> EntryPoint:
    """Return the entry point of the package that the study names, and of no other."""
    entry = only_entry(GROUP, module.module, what=WHAT, raises=StudyError)
    package, version = package_of(entry)
    if version != module.version:
        raise StudyError(
            f"module {module.module!r} is installed here in version {version} of {package}, and "
            f"the study names version {module.version}; install that, or correct the study"
        )
    digest = package_digest(entry, what=WHAT, raises=StudyError)
    if digest != module.digest:
        raise StudyError(
            f"module {module.module!r}: the code of {package} {version} installed here has the "
            f"digest {digest}, and the study names {module.digest[:16]}...; install the package "
            "that the study means, or correct the study"
        )
    return entry


def installed_table(name: str) -> str:
    """Return the lines of a study that name a module as it is installed here; loads nothing.

    Raises:
        StudyError: it is not installed, or by several packages.
    """
    entry = only_entry(GROUP, name, what=WHAT, raises=StudyError)
    digest = package_digest(entry, what=WHAT, raises=StudyError)
    return (
        f'[[model.branches]]\nkind = "module"\nmodule = "{name}"\n'
        f'version = "{package_of(entry)[1]}"\ndigest = "{digest}"\n'
    )


def installed_network(
    branch: ModuleBranch, inputs: Inputs, study: Study, generator: Generator
) -> "ModuleModel":
    """Load the module's package, let it make the module, and make a branch of that.

    Raises:
        StudyError: as :func:`require_modules`; the package fails; or what it makes cannot be
            trained here.
    """
    entry = _entry_of(branch)
    make = load(entry, what=WHAT, raises=StudyError)
    require_loaded_as(entry, branch.digest, what=WHAT, raises=StudyError)
    asked = Asked(
        variables=_variables(inputs),
        codes=0 if inputs.tokens is None else len(inputs.tokens.names),
        vocabulary=0
        if inputs.tokens is None
        else len(inputs.tokens.vocabulary) + UNKNOWN_TOKEN + 1,
        outputs=study.task.outputs,
        per_step=study.task.per_step,
        steps=study.data.steps,
        settings=dict(branch.settings),
    )
    try:
        with drawn_from(generator):
            module = make(asked)
    except Exception as error:  # whatever another's code raises is told in one sentence
        raise StudyError(
            f"module {branch.module!r} cannot be made with the study's settings "
            f"({type(error).__name__}); correct them, or ask who wrote it"
        ) from error
    if not isinstance(module, nn.Module):
        raise StudyError(
            f"module {branch.module!r} gives a {type(module).__name__}, and it must be a "
            "torch.nn.Module; ask who wrote it"
        )
    require_trainable(module, branch.module)
    return ModuleModel(
        module, inputs, study.task, generator, name=branch.module, step_h=study.data.step_h
    )


def require_trainable(module: nn.Module, name: str) -> None:
    """Refuse a module that has other state than trained weights, or mixes patients by design.

    Raises:
        StudyError: one sentence: the part of the module, and the remedy.
    """

    def refused(place: str, what: str) -> StudyError:
        return StudyError(f"module {name!r}: {place or 'it'} {what}")

    for place, part in module.named_modules():
        kind = type(part).__name__
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            raise refused(
                place,
                f"is a {kind}, which mixes the patients of a batch and remembers them; use "
                "GroupNorm or LayerNorm",
            )
        if isinstance(part, nn.RNNBase):
            raise refused(
                place,
                f"is a {kind}, of which Opacus takes no per-patient gradients; use a branch of "
                'kind "recurrent", or opacus.layers.DPLSTM and its kin',
            )
    parameters = dict(module.named_parameters())
    for place, value in module.state_dict().items():
        if place not in parameters:
            raise refused(
                place,
                "is a buffer, or a weight under a second name, and only trained weights travel; "
                "make a constant with register_buffer(..., persistent=False), keep running "
                "statistics nowhere, and give each weight one name",
            )
        if value.dtype != torch.float32 or not parameters[place].requires_grad:
            raise refused(place, "is not trained in float32; make it so, or no parameter")
    if not parameters:
        raise refused("", "has no weights to train; give it some")


class ModuleModel(Branch):
    """The module, and a linear map from its K logits to K, which begins as the identity.

    The map is where the outputs begin at the task's prevalence and where risks are put right, as in
    every other network.
    """

    def __init__(
        self,
        module: nn.Module,
        inputs: Inputs,
        task: Task,
        generator: Generator | None = None,
        *,
        name: str = "module",
        step_h: int = 1,
    ) -> None:
        super().__init__(inputs.features, task, inputs.tokens, _largest_dropout(module))
        self.name, self.step_h = name, step_h
        self.series, self.channels = inputs.series, inputs.channels
        self.static = _variables(inputs) - inputs.series
        self.module = module
        self.head = Linear(task.outputs, task.outputs, generator=generator)
        nn.init.eye_(self.head.weight)
        begin_at(self.head, task)

    def forward(
        self,
        x_NTF: Tensor,
        mask_NT: Tensor,
        *,
        books: Bookkeeping | None = None,
        generator: Generator | None = None,
        read: Tensor | None = None,
    ) -> Tensor:
        """See :class:`.Branch`."""
        del read
        with drawn_from(generator, needed=self.training and self.dropout > 0):
            if books is not None:
                values: Tensor = _EachAlone.apply(  # type: ignore[no-untyped-call]  # torch leaves apply untyped
                    self, x_NTF, mask_NT, books, *self.module.parameters()
                )
            elif row_by_row(books):
                values = self.stacked(self.each_alone(x_NTF, mask_NT), x_NTF)
            else:
                values = self.together(x_NTF, mask_NT)
        logits: Tensor = self.head(values, books=books)
        return logits

    def together(self, x_NTF: Tensor, mask_NT: Tensor) -> Tensor:
        """Return what the module says of a padded batch."""
        x_NTF = torch.where(mask_NT.unsqueeze(2), x_NTF, 0.0)
        said: Tensor = self.module(*self.sequences(x_NTF, mask_NT))
        expected = (len(mask_NT), *self._shape(mask_NT.shape[1]))
        if said.shape != expected:
            raise StudyError(
                f"module {self.name!r} gives logits of shape {tuple(said.shape)}, and the task "
                f"needs {expected}; ask who wrote it"
            )
        return said

    def each_alone(self, x_NTF: Tensor, mask_NT: Tensor) -> list[Tensor]:
        """Return what the module says of each stay by itself; zeros where it fails."""
        said, failed = [], False
        for x_TF, mask_T in zip(x_NTF, mask_NT, strict=True):
            steps = max(1, int(mask_T.sum()))
            # a copy, so that every stay's numbers lie alike in memory, and none is written to
            x_1TF, mask_1T = x_TF[None, :steps].clone(), mask_T[None, :steps].clone()
            try:
                logits = self.together(x_1TF, mask_1T)[0]
                if self.task.per_step:
                    logits = nn.functional.pad(logits, (0, 0, 0, len(mask_T) - steps))
            except Exception:  # a stay must not decide whether a site answers
                failed = True
                logits = x_TF.new_zeros(self._shape(len(mask_T)))
            said.append(logits)
        if failed:
            log.warning(
                "module %s failed on stays, which count as zero; ask who wrote it", self.name
            )
        return said

    def stacked(self, said: list[Tensor], x_NTF: Tensor) -> Tensor:
        """Return logits of stays as one tensor, also of none."""
        nothing = x_NTF.new_zeros(0, *self._shape(x_NTF.shape[1]))
        return torch.stack([logits.detach() for logits in said]) if said else nothing

    def sequences(self, x_NTF: Tensor, mask_NT: Tensor) -> tuple[Tensor, ...]:
        """Return what a module reads: values, observed, hours, lengths, and codes if there are any.

        They are (N, T, V), (N, T, V), (N, T), (N,) and (N, T, M).
        """
        series, static = self.series, self.static
        first = self.channels * series
        at_step_T = torch.arange(mask_NT.shape[1], device=x_NTF.device) * float(self.step_h)
        parts = [
            torch.cat([x_NTF[..., :series], x_NTF[..., first : first + static]], dim=2),
            torch.cat(
                [
                    x_NTF[..., series : 2 * series],
                    x_NTF[..., first + static : first + 2 * static],
                ],
                dim=2,
            ),
            at_step_T.repeat(len(x_NTF), 1),
            mask_NT.sum(1).clamp(min=1),
        ]
        if self.codes:
            parts.append(x_NTF[..., -self.codes :].long())
        return tuple(parts)

    def _shape(self, steps: int) -> tuple[int, ...]:
        """Return the shape of one stay's logits."""
        return (steps, self.task.outputs) if self.task.per_step else (self.task.outputs,)

    @property
    def streams(self) -> bool:
        """See :class:`.Branch`: a module keeps no state, so the stay so far is read again."""
        return False

    @property
    def numbers_kept(self) -> int:
        """See :class:`.Branch`; taken to be as many as the module has weights."""
        return sum(parameter.numel() for parameter in self.module.parameters())

    @property
    def output_layers(self) -> list[Linear]:
        """See :class:`.Branch`."""
        return [self.head]

    @property
    def onnx_obstacle(self) -> str:
        """See :class:`.Branch`."""
        return f"the code of the installed module {self.name!r}"


class _EachAlone(torch.autograd.Function):
    """Stays through the module one by one; the backward files each one's gradient as written."""

    @staticmethod
    def forward(
        ctx: Any,
        model: ModuleModel,
        x_NTF: Tensor,
        mask_NT: Tensor,
        books: Bookkeeping,
        *parameters: Tensor,
    ) -> Tensor:
        with torch.enable_grad():
            said = model.each_alone(x_NTF.detach(), mask_NT)
        ctx.said, ctx.books, ctx.parameters = said, books, parameters
        return model.stacked(said, x_NTF)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[None, ...]:
        rows = [
            _gradients(logits, each, ctx.parameters)
            for logits, each in zip(ctx.said, grad, strict=True)
        ]
        ctx.said = None
        for parameter, *of_N in zip(ctx.parameters, *rows, strict=True):
            ctx.books.file(Direct(parameter, torch.stack(of_N)))
        return (None,) * (4 + len(ctx.parameters))


def _gradients(logits: Tensor, grad: Tensor, parameters: tuple[Tensor, ...]) -> list[Tensor]:
    """Return one stay's gradient of each parameter as a vector; NaN if it cannot be taken."""
    if not logits.requires_grad:  # the module failed
        return [parameter.new_zeros(parameter.numel()) for parameter in parameters]
    try:
        found = torch.autograd.grad(logits, parameters, grad, allow_unused=True)
    except Exception:  # a stay must not decide whether a site answers
        found = tuple(torch.full_like(parameter, torch.nan) for parameter in parameters)
    return [
        (torch.zeros_like(parameter) if one is None else one).detach().reshape(-1)
        for parameter, one in zip(parameters, found, strict=True)
    ]


@contextmanager
def drawn_from(generator: Generator | None, *, needed: bool = True) -> Iterator[None]:
    """Let what draws from torch's own random state draw from this generator's next number.

    The random state is as before afterwards. Without a generator, what is drawn is always the same.
    """
    if not needed:
        yield
        return
    seed = 0
    if generator is not None:
        seed = int(torch.randint(1 << 62, (1,), generator=generator))
    with _drawing, torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def _variables(inputs: Inputs) -> int:
    """Return V: of the series, and of the static variables, each of which is two inputs."""
    codes = 0 if inputs.tokens is None else len(inputs.tokens.names)
    return inputs.series + (inputs.features - codes - inputs.channels * inputs.series) // 2


def _largest_dropout(module: nn.Module) -> float:
    """Return the largest share that a layer of the module drops in training."""
    layers = [part for part in module.modules() if isinstance(part, nn.modules.dropout._DropoutNd)]
    shares = [float(layer.p) for layer in layers]
    named = [getattr(part, "dropout", 0.0) for part in module.modules()]
    return max([0.0, *shares, *(float(share) for share in named if isinstance(share, float))])
