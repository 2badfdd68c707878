"""Checks a study's installed modules by numbers, before a study is approved, submitted or run.

Made-up stays go through the module together and one by one. What it says must be the same, whatever
stays beside it and whatever went before; and every stay's gradient, as training takes it, must be
the one that Opacus takes of the whole batch: by hooks on the layers, or by functorch where the
layers have none. A module that mixes patients, reads padding, keeps state or has a layer without
per-patient gradients does not pass.

Opacus is imported here, and only if a study uses a module: its import takes about three seconds.
"""

import copy
import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from consilium.shared.errors import StudyError
from consilium.shared.model.bookkeeping import Bookkeeping
from consilium.shared.model.installed_module import ModuleModel, drawn_from
from consilium.shared.model.mean_of_branches import MeanOfBranches
from consilium.shared.model.study_model import study_model
from consilium.shared.study.definition import Study

STAYS, MOST_STEPS = 5, 24
CLOSE = 1e-5  # between logits, over 1 + the largest
CLOSE_GRADIENTS = 1e-4  # between gradients of a stay, over the norm of the longest
REMEDY = (
    "; use layers that treat each patient alone (GroupNorm and LayerNorm, not BatchNorm), look at "
    "nothing beyond a stay's length, and keep nothing from one call to the next"
)


def check_modules(study: Study) -> None:
    """Refuse a study with an installed module that is not as named, or cannot be trained privately.

    Does nothing in a study without modules. Loads and runs the packages' code otherwise.

    Raises:
        StudyError: one sentence: the module, what is wrong with it, and the remedy.
    """
    if not study.model.modules:
        return
    model = study_model(study)
    networks = model.networks if isinstance(model, MeanOfBranches) else []
    for network in networks:
        if isinstance(network, ModuleModel):
            check_module(network, min(MOST_STEPS, study.data.steps))


def check_module(network: ModuleModel, steps: int) -> None:
    """Compare what the module says, and its gradients, for stays together and alone.

    Args:
        network: the module as a branch, with its initial weights; it is left as it was.
        steps: T of the made-up stays.

    Raises:
        StudyError: as :func:`check_modules`.
    """
    network = _without_dropout(network)
    x_NTF, mask_NT = _made_up_stays(network, steps)
    _check_logits(network, x_NTF, mask_NT)
    _check_gradients(network, x_NTF, mask_NT)


def _check_logits(network: ModuleModel, x_NTF: Tensor, mask_NT: Tensor) -> None:
    steps, name, before = mask_NT.shape[1], network.name, _state(network.module)
    half = -(-steps // 2)
    try:
        together = _padded(network, network.together(x_NTF, mask_NT), mask_NT)
        alone = [
            _padded(network, _alone(network, x_NTF, mask_NT, row), mask_NT[row : row + 1])
            for row in range(STAYS)
        ]
        again = _padded(network, _alone(network, x_NTF, mask_NT, 0), mask_NT[:1])
        begun = network.together(x_NTF[-1:, :half], mask_NT[-1:, :half]).detach()
    except StudyError:
        raise
    except Exception as error:  # whatever another's code raises is told in one sentence
        raise StudyError(
            f"module {name!r} fails on made-up stays of up to {steps} steps "
            f"({type(error).__name__}); ask who wrote it"
        ) from error
    if not torch.isfinite(together).all():
        raise StudyError(
            f"module {name!r} gives logits that are not finite with its initial weights; ask who "
            "wrote it"
        )
    if not torch.equal(alone[0], again) or not _same(before, _state(network.module)):
        raise StudyError(f"module {name!r} keeps state of its own from stay to stay{REMEDY}")
    if not _close(together, torch.cat(alone)):
        raise StudyError(
            f"module {name!r} says another thing of a stay in a batch than of the stay alone: it "
            f"mixes patients, or reads padding{REMEDY}"
        )
    if network.task.per_step and not _close(together[-1:, :half], begun):
        raise StudyError(
            f"module {name!r} says another thing of a step when later steps are known; look at "
            "this step and earlier ones alone"
        )


def _check_gradients(network: ModuleModel, x_NTF: Tensor, mask_NT: Tensor) -> None:
    if unused := _unused(network, x_NTF, mask_NT):
        raise StudyError(
            f"module {network.name!r}: no gradient reaches its weight {unused[0]!r}; remove it, or "
            "use it"
        )
    ours = _own_gradients(network, x_NTF, mask_NT)
    theirs = _gradients_by_opacus(network, x_NTF, mask_NT, ours)
    longest = torch.cat([one.flatten(1) for one in ours], dim=1).norm(dim=1).max().clamp(1e-30)
    for one, other in zip(ours, theirs, strict=True):
        if not float((one - other).abs().max() / longest) <= CLOSE_GRADIENTS:
            raise StudyError(
                f"module {network.name!r}: Opacus's gradients of single patients are not those of "
                f"the patients one at a time{REMEDY}"
            )


def _without_dropout(network: ModuleModel) -> ModuleModel:
    """Return a copy in training mode that drops nothing, so that two runs can be compared."""
    network = copy.deepcopy(network).train()
    for part in network.module.modules():
        if isinstance(part, nn.modules.dropout._DropoutNd):
            part.p = 0.0
        elif isinstance(getattr(part, "dropout", None), float):
            vars(part)["dropout"] = 0.0  # as attention keeps it
    return network


def _made_up_stays(network: ModuleModel, steps: int) -> tuple[Tensor, Tensor]:
    """Return inputs (N, T, F) and a mask (N, T) of stays of several lengths, padding not zero."""
    generator = torch.Generator().manual_seed(1)
    x_NTF = torch.randn(STAYS, steps, network.features, generator=generator)
    first = network.channels * network.series
    observed = [*range(network.series, 2 * network.series)]
    observed += range(first + network.static, first + 2 * network.static)
    x_NTF[..., observed] = (x_NTF[..., observed] > 0).float()
    if network.codes:
        shape = x_NTF[..., -network.codes :].shape
        codes = torch.randint(0, network.lines + 1, shape, generator=generator)
        x_NTF[..., -network.codes :] = codes.float()
    length_N = torch.linspace(1, steps, STAYS).round().long()
    return x_NTF, torch.arange(steps) < length_N.unsqueeze(1)


def _alone(network: ModuleModel, x_NTF: Tensor, mask_NT: Tensor, row: int) -> Tensor:
    steps = int(mask_NT[row].sum())
    one = slice(row, row + 1)
    return network.together(x_NTF[one, :steps].clone(), mask_NT[one, :steps])


def _padded(network: ModuleModel, logits: Tensor, mask_NT: Tensor) -> Tensor:
    """Return logits with zeros at padded steps, all of one length."""
    if not network.task.per_step:
        return logits.detach()
    missing = mask_NT.shape[1] - logits.shape[1]
    padded = nn.functional.pad(logits.detach(), (0, 0, 0, missing))
    return torch.where(mask_NT.unsqueeze(2), padded, 0.0)


def _close(one: Tensor, other: Tensor) -> bool:
    return bool((one - other).abs().max() <= CLOSE * (1 + one.abs().max()))


def _state(module: nn.Module) -> list[Tensor]:
    return [value.detach().clone() for value in (*module.parameters(), *module.buffers())]


def _same(before: list[Tensor], after: list[Tensor]) -> bool:
    return len(before) == len(after) and all(map(torch.equal, before, after))


def _unused(network: ModuleModel, x_NTF: Tensor, mask_NT: Tensor) -> list[str]:
    """Return the names of weights on which the logits do not depend."""
    names, parameters = zip(*network.module.named_parameters(), strict=True)
    total = network.together(x_NTF, mask_NT).sum()
    found = torch.autograd.grad(total, parameters, allow_unused=True)
    return [name for name, one in zip(names, found, strict=True) if one is None]


def _own_gradients(network: ModuleModel, x_NTF: Tensor, mask_NT: Tensor) -> list[Tensor]:
    """Return every stay's gradient (N, ...) of each weight, as training takes it."""
    books = Bookkeeping()
    _loss(network, network(x_NTF, mask_NT, books=books), mask_NT).backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    return books.per_row(network.module.parameters())


def _loss(network: ModuleModel, logits: Tensor, mask_NT: Tensor) -> Tensor:
    """Return a made-up loss that weighs every output otherwise; padded steps do not count."""
    weight_K = torch.arange(1.0, network.task.outputs + 1)
    loss = logits.square() * weight_K + logits
    return (loss * mask_NT.unsqueeze(2) if network.task.per_step else loss).sum()


def _gradients_by_opacus(
    network: ModuleModel, x_NTF: Tensor, mask_NT: Tensor, ours: list[Tensor]
) -> list[Tensor]:
    """Return every stay's gradient (N, ...) by Opacus's hooks, or else by functorch.

    Hooks see one input of a layer; a module with weights outside of layers, or layers of several
    inputs, needs functorch.
    """
    try:
        found = _by_hooks(network, x_NTF, mask_NT)
    except Exception:  # a layer that hooks do not serve
        found = []
    if [one.shape for one in found if isinstance(one, Tensor)] == [one.shape for one in ours]:
        return found
    try:
        return _by_functorch(network, x_NTF, mask_NT)
    except Exception as error:  # whatever it is, there are no gradients
        raise StudyError(
            f"module {network.name!r}: Opacus takes no per-patient gradients of it, neither by "
            f"hooks nor by functorch ({type(error).__name__}); use layers that its documentation "
            "lists, such as opacus.layers.DPMultiheadAttention and DPLSTM, and no branch on values"
        ) from error


def _by_hooks(network: ModuleModel, x_NTF: Tensor, mask_NT: Tensor) -> list[Any]:
    from opacus import GradSampleModule

    hooked = copy.deepcopy(network)
    with warnings.catch_warnings(), drawn_from(None):
        warnings.simplefilter("ignore")  # of hooks on layers whose input has no gradient
        hooked.module = GradSampleModule(hooked.module, loss_reduction="sum")
        logits = hooked.head(hooked.together(x_NTF, mask_NT))
        _loss(network, logits, mask_NT).backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    return [vars(parameter).get("grad_sample") for parameter in hooked.module.parameters()]


def _by_functorch(network: ModuleModel, x_NTF: Tensor, mask_NT: Tensor) -> list[Tensor]:
    def loss_of(weights: dict[str, Tensor], mask_T: Tensor, *parts: Tensor) -> Tensor:
        said = functional_call(network.module, weights, tuple(part[None] for part in parts))
        return _loss(network, network.head(said), mask_T[None])

    weights = {name: value.detach() for name, value in network.module.named_parameters()}
    parts = network.sequences(torch.where(mask_NT.unsqueeze(2), x_NTF, 0.0), mask_NT)
    each = vmap(grad(loss_of), in_dims=(None, 0, *[0] * len(parts)))
    with warnings.catch_warnings(), drawn_from(None), sdpa_kernel(SDPBackend.MATH):
        warnings.simplefilter("ignore")  # of operators that functorch runs one by one
        by_name = each(weights, mask_NT, *parts)
    return [by_name[name].detach() for name in weights]
