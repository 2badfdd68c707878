"""Which parts of a model stay at each hospital: the study's ``[personalisation]``."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, Self

from pydantic import Field, model_validator

from consilium.shared.files.strict_toml import StrictTable
from consilium.shared.study.training import Model, Privacy, Training

ModelPart = Literal["head", "norm", "inputs"]
WORDS: Mapping[ModelPart, str] = MappingProxyType(
    {
        "head": "the model's head (its maps to the outputs)",
        "norm": "the normalisation of the model's state",
        "inputs": "the mean and deviation that normalise the model's inputs",
    }
)


class Ditto(StrictTable):
    """A whole model of its own at every site, held near the global one.

    In each training round a site takes ``steps`` plain gradient steps of ``learning_rate`` on its
    own loss plus ``pull`` / 2 times the squared distance of its model to the global one
    (Ditto, Li et al., ICML 2021, algorithm 1; ``pull`` is their lambda).
    """

    pull: float = Field(ge=0, allow_inf_nan=False)
    steps: int = Field(default=10, ge=1, le=10_000)
    learning_rate: float = Field(default=0.1, gt=0, allow_inf_nan=False)

    @model_validator(mode="after")
    def _steps_do_not_overshoot(self) -> Self:
        if self.pull * self.learning_rate >= 1:
            raise ValueError(
                f"pull {self.pull:g} times learning_rate {self.learning_rate:g} must be below 1, "
                "or every step jumps past the global model; lower one of them"
            )
        return self


class Personalisation(StrictTable):
    """What every site trains and keeps for itself: parts of the model, or a second one.

    ``parts`` names them. "head": the maps to the outputs, those of every branch and the linear path
    of ``skip`` among them (FedPer, Arivazhagan et al. 2019). "norm": LayerNorm's weight and bias,
    the one normalisation that our models have (after FedBN, Li et al., ICLR 2021). "inputs": mean
    and deviation of the site's own patients, as it gave them to the sum of statistics, normalise
    its inputs; a site that was not in that sum uses the federation's.

    ``ditto`` asks for a second model of the site's own; the training of the global one is
    unchanged.
    """

    parts: tuple[ModelPart, ...] = Field(default=(), strict=False)
    ditto: Ditto | None = None

    @model_validator(mode="after")
    def _parts_once(self) -> Self:
        if len(set(self.parts)) != len(self.parts):
            raise ValueError("parts must not hold an entry twice; remove the repetition")
        if self.ditto is not None and self.weights:
            raise ValueError(
                f'has ditto, a whole model for each site, and parts names "{self.weights[0]}", a '
                "part of the shared one; keep one of the two"
            )
        return self

    @property
    def weights(self) -> tuple[ModelPart, ...]:
        """Those of ``parts`` that are weights of the model."""
        return tuple(part for part in self.parts if part != "inputs")

    @property
    def active(self) -> bool:
        """Whether a site has anything of its own."""
        return bool(self.parts) or self.ditto is not None

    @property
    def described(self) -> str:
        """What is each site's own, in words; empty if nothing is."""
        second = () if self.ditto is None else ("a second model, trained beside the global one",)
        return " and ".join((*(WORDS[part] for part in self.parts), *second))


def check_personalisation(
    own: Personalisation, model: Model, training: Training, privacy: Privacy
) -> None:
    """Refuse a personalisation that makes no sense beside the study's other tables.

    Raises:
        ValueError: one sentence: what does not fit, and the remedy.
    """
    if "norm" in own.parts and not any(each.layer_norm for each in model.recurrences):
        table = "[[model.branches]]" if model.branches else "[model]"
        raise ValueError(
            f'[personalisation] parts names "norm", and the model has no normalisation; set {table}'
            " layer_norm = true or leave it out"
        )
    if own.weights and training.control_variates:
        raise ValueError(
            f'[personalisation] parts names "{own.weights[0]}", whose gradients no other site '
            "knows, and [training] control_variates are differences to the others' gradients; keep "
            "one of the two"
        )
    if own.weights and privacy.mode == "distributed":
        raise ValueError(
            f'[personalisation] parts names "{own.weights[0]}", which a site trains from its own '
            "gradients, and in privacy mode distributed only the sum over sites carries enough "
            'noise; set [privacy] mode = "site" or leave it out'
        )
