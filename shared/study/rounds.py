"""What a study says of all sites together: how updates are summed, and how models are judged."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from consilium.shared.files.strict_toml import StrictTable
from consilium.shared.secure_sum.fixed_point import RingBits
from consilium.shared.study.branches import Fraction
from consilium.shared.study.dictionary import Finite, Positive

MINIMUM_SITES = 3  # the sum of two sites tells each of them the other's update


class Aggregation(StrictTable):
    """The secure sum and the server's step on the mean update.

    ``strategy`` is how the server steps along the mean update
    (:mod:`consilium.server.study.aggregation`). ``neighbours`` is the number of other sites with
    which each shares masks: all of them up to 100 sites, the fewest that are safe beyond, unless
    given. A site's weight is the size that its hospital declared
    (:mod:`consilium.shared.crypto.declaration`), at most ``max_weight`` patients. With ``groups``
    above 1 each group of sites, consecutive in ``sites``, is summed by itself and the model takes
    the coordinate-wise median of the groups' mean updates: fewer than half of the groups can be
    poisoned, and the coordinator sees the sum of every group.
    """

    strategy: Literal["fedavg", "fedavgm", "fedadagrad", "fedadam", "fedyogi"] = "fedavg"
    server_learning_rate: Positive = 1.0
    momentum: Fraction = 0.9
    second_moment: Fraction = 0.99
    adaptivity: Positive = 1e-3
    average_decay: Fraction = 0.0
    weighting: Literal["patients", "uniform"] = "patients"
    update_norm: Positive = 10.0
    ring_bits: RingBits = 32
    minimum_sites: int | None = Field(default=None, ge=MINIMUM_SITES)
    threshold: int | None = Field(default=None, ge=2)
    tolerated_collusion: int = Field(default=1, ge=0)
    neighbours: int | None = Field(default=None, ge=2)
    groups: int = Field(default=1, ge=1)
    max_weight: int = Field(default=100_000, ge=1)
    round_timeout_s: Positive = 600.0


class Subgroup(StrictTable):
    """Groups by a static variable: below the first cut, between two cuts, above the last.

    ``names`` are words for the parts, from below the first cut upwards.
    """

    cuts: tuple[Finite, ...] = Field(min_length=1, max_length=16, strict=False)
    names: tuple[Annotated[str, Field(min_length=1, max_length=64)], ...] = Field(
        default=(), strict=False
    )

    @model_validator(mode="after")
    def _names_fit_cuts(self) -> Self:
        if any(low >= high for low, high in zip(self.cuts, self.cuts[1:], strict=False)):
            raise ValueError(f"cuts {list(self.cuts)} must ascend; put them in order")
        if self.names and len(self.names) != len(self.cuts) + 1:
            raise ValueError(
                f"names has {len(self.names)} entries and must have one more than cuts, "
                f"{len(self.cuts) + 1}; name every part"
            )
        return self


class Evaluation(StrictTable):
    """Federated evaluation on patients kept out of training, by secure sums of score counts.

    ``bins`` and ``passes`` follow from the privacy mode unless given (docs/decisions/090): the
    finished model is evaluated up to ``passes`` times, each with bins placed where the one before
    found risks. Counts are exact at risks of ``thresholds``. Beside all patients, each of
    ``subgroups`` is evaluated, and with ``per_site`` each hospital whose own policy releases its
    figures; a group with fewer than ``smallest_group`` patients with, or without, the outcome is
    not reported. Of each site at most ``explained_patients`` patients are explained; their summed
    attributions show what the model looks at.
    """

    validation_fraction: Fraction = 0.0
    bins: int | None = Field(default=None, ge=8, le=10_000)
    passes: int | None = Field(default=None, ge=1, le=10)
    every: int = Field(default=1, ge=1)
    thresholds: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = Field(
        default=(0.05, 0.1, 0.2, 0.3, 0.5), max_length=5, strict=False
    )

    per_site: bool = False
    subgroups: dict[str, Subgroup] = Field(default={}, max_length=64)
    smallest_group: int = Field(default=10, ge=1)
    explained_patients: int = Field(default=0, ge=0, le=10_000)

    @model_validator(mode="after")
    def _thresholds_ascend(self) -> Self:
        if any(a >= b for a, b in zip(self.thresholds, self.thresholds[1:], strict=False)):
            raise ValueError(f"thresholds {list(self.thresholds)} must ascend; put them in order")
        return self
