"""What a study says of the loss that training lowers, where it is not the plain one of its task."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from consilium.shared.files.strict_toml import StrictTable

Weight = Annotated[float, Field(gt=0, le=1000)]


class Loss(StrictTable):
    """The loss of a task whose outputs are classes or labels; figures are of the plain one.

    With c the cross entropy of a class or label, ``kind`` "cross-entropy" lowers c; "focal" lowers
    (1 - exp(-c))^gamma c, so that what the model is sure of counts little (Lin et al. 2017,
    arXiv 1708.02002, without its weights); "bounded" lowers (1 - exp(-q c)) / q, which no wrong
    label makes larger than 1 / q (generalised cross entropy: Zhang and Sabuncu 2018, arXiv
    1805.07836). ``smoothing`` is the share of a label that is spread over all classes evenly
    (Szegedy et al. 2016, arXiv 1512.00567, section 7).

    ``weights`` are one a class (multi-class), or one a label, where it is present. ``balance``
    computes them instead from the classes that the sites count in their round of statistics: a
    class weighs its share to the power -balance, and patients weigh 1 on average.
    """

    kind: Literal["cross-entropy", "focal", "bounded"] = "cross-entropy"
    weights: tuple[Weight, ...] = Field(default=(), max_length=4096, strict=False)
    balance: float = Field(default=0.0, ge=0, le=1)
    gamma: float = Field(default=2.0, gt=0, le=10)
    q: float = Field(default=0.7, gt=0, le=1)
    smoothing: float = Field(default=0.0, ge=0, lt=1)

    @model_validator(mode="after")
    def _parts_fit_together(self) -> Self:
        if self.weights and self.balance:
            raise ValueError(
                f"balance {self.balance:g} computes the weights that weights gives; remove one"
            )
        if self.smoothing and self.kind != "cross-entropy":
            raise ValueError(
                f'smoothing {self.smoothing:g} is for kind = "cross-entropy", not {self.kind!r}; '
                "set it to 0"
            )
        for name, own in (("gamma", "focal"), ("q", "bounded")):
            value: float = getattr(self, name)
            if self.kind != own and value != type(self).model_fields[name].default:
                raise ValueError(
                    f'{name} {value:g} is for kind = "{own}", not {self.kind!r}; remove it'
                )
        return self

    @property
    def plain(self) -> bool:
        """Whether it is the plain cross entropy."""
        return self == Loss()

    @property
    def described(self) -> str:
        """The loss in words."""
        words = {
            "cross-entropy": "cross entropy",
            "focal": f"focal loss, gamma {self.gamma:g}",
            "bounded": f"bounded (generalised) cross entropy, q {self.q:g}",
        }[self.kind]
        if self.smoothing:
            words += f", labels smoothed by {self.smoothing:g}"
        if self.weights:
            words += f", weights {', '.join(f'{weight:g}' for weight in self.weights)}"
        if self.balance:
            words += f", classes weigh their counted share to the power -{self.balance:g}"
        return words
