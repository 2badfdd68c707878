"""The model's inputs step by step, as events come; ``features.to_tensors`` makes them at once.

Guarantee: after the same events, the inputs of a step equal those that ``to_tensors`` makes of the
window up to that step, to float32 rounding.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from consilium.client.records.features import COUNT_SCALE, RECENCY_H, USUAL_DISTANCE
from consilium.shared.study.definition import Study
from consilium.shared.study.input_names import feature_names, token_names

Array = NDArray[np.float64]


class Layout:
    """Where a study's variables and codes lie among the events' columns and the model's inputs."""

    def __init__(self, study: Study) -> None:
        roles = np.array([variable.role for variable in study.variables.values()])
        self.series = np.flatnonzero(roles == "series")
        self.static = np.flatnonzero(roles == "static")
        self.codes = len(study.variables) + np.arange(len(token_names(study)))
        self.names = (*study.variables, *token_names(study))
        self.step_h = float(study.data.step_h)
        self.short = study.data.clock == "position"
        self.features = len(feature_names(study))

    def without_each(self) -> Array:
        """Return ones (1 + columns, F), with zeros in row i + 1 at the inputs of column i."""
        blocks = [self.series] * (2 if self.short else 6) + [self.static] * 2 + [self.codes]
        column_F = np.concatenate(blocks)
        keep = np.ones((1 + len(self.names), self.features))
        keep[1 + column_F, np.arange(self.features)] = 0.0
        return keep


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class RunningFeatures:
    """Summary of the finished steps, enough to make the next step's inputs.

    Attributes:
        layout: the study's layout.
        step: number of finished steps.
        value_V: last value of each series variable; ``last_V`` is its step, -1 if there is none.
        sum_V: sum of each variable's values; ``count_V`` is their number.
        first_static: first value of each static variable; ``known_static`` tells if there is one.
    """

    layout: Layout
    step: int
    value_V: Array
    last_V: Array
    sum_V: Array
    count_V: Array
    first_static: Array
    known_static: NDArray[np.bool_]

    @classmethod
    def start(cls, layout: Layout) -> "RunningFeatures":
        """Return the summary before the first step."""
        series, static = len(layout.series), len(layout.static)
        return cls(
            layout=layout,
            step=0,
            value_V=np.zeros(series),
            last_V=np.full(series, -1.0),
            sum_V=np.zeros(series),
            count_V=np.zeros(series),
            first_static=np.zeros(static),
            known_static=np.zeros(static, dtype=np.bool_),
        )

    def after_step(self, z_C: NDArray[np.float32]) -> "RunningFeatures":
        """Return the summary after a step with these measurements; ``z_C`` as in :meth:`inputs`."""
        z_V = z_C[self.layout.series].astype(np.float64)
        z_static = z_C[self.layout.static].astype(np.float64)
        measured_V, new_static = ~np.isnan(z_V), ~np.isnan(z_static) & ~self.known_static
        return RunningFeatures(
            layout=self.layout,
            step=self.step + 1,
            value_V=np.where(measured_V, z_V, self.value_V),
            last_V=np.where(measured_V, self.step, self.last_V),
            sum_V=self.sum_V + np.where(measured_V, z_V, 0.0),
            count_V=self.count_V + measured_V,
            first_static=np.where(new_static, z_static, self.first_static),
            known_static=self.known_static | new_static,
        )

    def inputs(self, z_C: NDArray[np.float32]) -> Array:
        """Return the inputs (F,) of the current step.

        Args:
            z_C: the step's normalised values in the order of the study's variables, then the
                numbers of codes; NaN where nothing was measured.
        """
        layout, after = self.layout, self.after_step(z_C)
        never = after.last_V < 0
        recency = np.exp((after.last_V - self.step) * (layout.step_h / RECENCY_H))
        parts = [
            after.value_V,
            after.last_V == self.step,
            np.where(never, 0.0, recency),
            np.where(never, 0.0, np.abs(after.value_V) - np.float32(USUAL_DISTANCE)),
            after.sum_V / np.maximum(after.count_V, 1),
            np.log1p(after.count_V) / COUNT_SCALE,
        ][: 2 if layout.short else None]
        return np.concatenate(
            [*parts, after.first_static, after.known_static, np.nan_to_num(z_C[layout.codes])],
            dtype=np.float64,
        )
