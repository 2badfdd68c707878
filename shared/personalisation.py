"""What of a model is each hospital's own and never leaves it: the study's ``[personalisation]``."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field, model_validator

from shared.declaration import Part

if TYPE_CHECKING:
    from shared.study import Study

OwnPart = Literal["head", "norm", "inputs"]
WORDS: Mapping[OwnPart, str] = MappingProxyType(
    {
        "head": "the model's head (its maps to the outputs)",
        "norm": "the normalisation of the model's state",
        "inputs": "the mean and deviation that normalise the model's inputs",
    }
)


class Personalisation(Part):
    """Parts that every site trains and keeps for itself, while the others are shared.

    ``parts`` names them. "head": the maps to the outputs, the linear path of ``skip`` among them
    (FedPer, Arivazhagan et al. 2019). "norm": LayerNorm's weight and bias, the one normalisation
    that our models have (after FedBN, Li et al., ICLR 2021). "inputs": mean and deviation of the
    site's own patients, as it gave them to the sum of statistics, normalise its inputs; a site
    that was not in that sum uses the federation's.
    """

    parts: tuple[OwnPart, ...] = Field(default=(), strict=False)

    @model_validator(mode="after")
    def _parts_once(self) -> Self:
        if len(set(self.parts)) != len(self.parts):
            raise ValueError("parts must not hold an entry twice; remove the repetition")
        return self

    @property
    def weights(self) -> tuple[OwnPart, ...]:
        """Those of ``parts`` that are weights of the model."""
        return tuple(part for part in self.parts if part != "inputs")

    @property
    def active(self) -> bool:
        """Whether a site has anything of its own."""
        return bool(self.parts)

    @property
    def described(self) -> str:
        """What is each site's own, in words; empty if nothing is."""
        return " and ".join(WORDS[part] for part in self.parts)


def check_personalisation(study: "Study") -> None:
    """Refuse a personalisation that makes no sense in this study.

    Raises:
        ValueError: one sentence: what does not fit, and the remedy.
    """
    own = study.personalisation
    if "norm" in own.parts and not study.model.layer_norm:
        raise ValueError(
            '[personalisation] parts names "norm", and the model has no normalisation; set [model] '
            "layer_norm = true or leave it out"
        )
    if own.weights and study.privacy.mode == "distributed":
        raise ValueError(
            f'[personalisation] parts names "{own.weights[0]}", which a site trains from its own '
            "gradients, and in privacy mode distributed only the sum over sites carries enough "
            'noise; set [privacy] mode = "site" or leave it out'
        )
