"""Figures on test patients as frozen objects, read from a run's record."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from consilium.simulations.figures.measures import FIGURES
from consilium.simulations.figures.metrics import Estimate

_BOUNDS = frozenset(("value", "low", "high"))


@dataclass(frozen=True, kw_only=True)
class Figures:
    """How good a model's answers are on some test patients.

    Each figure that the task has is an attribute, such as ``figures.auroc.value``: for binary and
    multi-label outcomes ``auroc``, ``auprc``, ``brier`` and ``accuracy`` (at a risk of 0.5); for
    classes ``accuracy``, ``mean_sensitivity`` and ``auroc``; in regression ``mae`` and ``rmse`` (in
    the target's unit) and ``r2``; for survival ``c_index`` and ``nll``. Asking for another raises
    AttributeError, which lists those there are.

    Attributes:
        estimates: the same figures by name, the most important first.
        patients: how many were tested on.
        rows: number of their known outcomes: of stays, or of steps of stays.
        positives: rows with the outcome; None where no outcome is counted.
        sensitivity: of each class, 0 to 1; empty where there are no classes.
    """

    estimates: Mapping[str, Estimate]
    patients: int
    rows: int
    positives: int | None = None
    sensitivity: tuple[float, ...] = ()

    @property
    def auroc(self) -> Estimate:
        """Area under the receiver operating characteristic."""
        return self._estimate("auroc")

    @property
    def auprc(self) -> Estimate:
        """Area under the precision-recall curve."""
        return self._estimate("auprc")

    @property
    def brier(self) -> Estimate:
        """Mean squared difference of risk and outcome; lower is better."""
        return self._estimate("brier")

    @property
    def accuracy(self) -> Estimate:
        """Share of outcomes predicted correctly."""
        return self._estimate("accuracy")

    @property
    def mean_sensitivity(self) -> Estimate:
        """Mean over classes of the share that is recognised."""
        return self._estimate("mean_sensitivity")

    @property
    def mae(self) -> Estimate:
        """Mean absolute error, in the target's unit; lower is better."""
        return self._estimate("mae")

    @property
    def rmse(self) -> Estimate:
        """Root of the mean squared error, in the target's unit; lower is better."""
        return self._estimate("rmse")

    @property
    def c_index(self) -> Estimate:
        """Of two of whom one has the event first, how often that one has the higher risk."""
        return self._estimate("c_index")

    @property
    def nll(self) -> Estimate:
        """Mean negative log-likelihood of the hazards of a survival study; lower is better."""
        return self._estimate("nll")

    @property
    def r2(self) -> Estimate:
        """Share of the target's variance explained."""
        return self._estimate("r2")

    if not TYPE_CHECKING:  # a type checker knows the figures above and refuses every other name

        def __getattr__(self, name: str) -> object:
            return self._estimate(name)

    def __dir__(self) -> list[str]:
        kinds = {name for figures in FIGURES.values() for name in figures}
        return [name for name in super().__dir__() if name not in kinds - set(self.estimates)]

    def _estimate(self, name: str) -> Estimate:
        found: Mapping[str, Estimate] = self.__dict__.get("estimates", {})
        if name not in found:
            raise AttributeError(f"there is no figure {name!r} here; there is {_listed(found)}")
        return found[name]


def figures_of(record: Mapping[str, Any]) -> Figures:
    """Return the figures in a record; see ``test`` in docs/run-json.md."""
    estimates = {name: estimate_of(one) for name, one in record.items() if _is_estimate(one)}
    return Figures(
        estimates=MappingProxyType(estimates),
        patients=record["patients"],
        rows=record["rows"],
        positives=record.get("positives"),
        sensitivity=tuple(_number(share) for share in record.get("sensitivity", ())),
    )


def figures_by_site(record: Mapping[str, Any] | None) -> Mapping[str, Figures]:
    """Return figures by hospital; empty if it is not known whose the test patients are."""
    return MappingProxyType({site: figures_of(one) for site, one in (record or {}).items()})


def estimate_of(record: Mapping[str, Any]) -> Estimate:
    """Return an estimate from a record, in which null stands for a number that is not finite."""
    return Estimate(**{bound: _number(record[bound]) for bound in ("value", "low", "high")})


def _is_estimate(value: object) -> bool:
    return isinstance(value, Mapping) and set(value) >= _BOUNDS


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _listed(names: Mapping[str, Estimate]) -> str:
    *rest, last = names or ("none",)
    return f"{', '.join(rest)} and {last}" if rest else last
