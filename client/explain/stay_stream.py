"""One stay as it happens: events go in, the model's current logits come out.

A unidirectional model keeps its state after the finished steps, so an event costs one step, however
long the stay. A late event, for a finished step, costs the steps since the last state saved before
it. A bidirectional model reads the whole window each time.

The rows of a batch are the stay (row 0), then the stay without each column: in row i + 1 column i
(a variable, or a column of codes) was never measured, so all its inputs are 0 at every step. The
difference between the two rows is therefore the exact occlusion effect.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from consilium.client.explain.branch_steps import State, steps_of
from consilium.client.explain.window_pass import WindowPass
from consilium.client.records.running_features import Layout, RunningFeatures
from consilium.shared.model.branch import Branch
from consilium.shared.model.network import RecurrentModel

Array = NDArray[np.float64]


SNAPSHOT_STEPS = 8  # a late event costs at most twice as many steps; a very late one, all


class StreamedModel:
    """A model and the layout of its inputs; one serves all stays."""

    def __init__(self, model: Branch, layout: Layout, *, reasons: bool) -> None:
        self.layout, self.reasons = layout, reasons
        self.keep_NF = layout.without_each() if reasons else np.ones((1, layout.features))
        self.whole = model
        self.stepwise = steps_of(model) if model.streams else None
        self._window = None
        if isinstance(model, RecurrentModel) and not model.streams and reasons:
            self._window = WindowPass(model, layout) if WindowPass.serves() else None

    def read_window(self, x_TF: NDArray[np.float32], measured_C: NDArray[np.bool_]) -> Array:
        """Read all steps at once; return the logits (N, K) as of the last one.

        Leaving out a column that was never measured changes nothing: its row copies the stay's.
        """
        rows = np.flatnonzero(np.append(True, measured_C))[: len(self.keep_NF)]
        if self._window is not None and len(rows) > 1:
            found = self._window.logits(x_TF, rows).double().numpy()
        else:
            found = self._each(x_TF, rows)
        all_NK = np.repeat(found[:1], len(self.keep_NF), axis=0)
        all_NK[rows] = found
        return np.asarray(all_NK)

    def _each(self, x_TF: NDArray[np.float32], rows: NDArray[np.intp]) -> Array:
        """Return the logits of these rows, each run in full."""
        keep_NF = self.keep_NF[rows].astype(np.float32)
        x_NTF = torch.from_numpy(x_TF[None] * keep_NF[:, None])
        with torch.inference_mode():
            logits = self.whole(x_NTF, torch.ones(x_NTF.shape[:2], dtype=torch.bool))
        return np.asarray((logits[:, -1] if self.whole.task.per_step else logits).double())


@dataclass(frozen=True, kw_only=True)
class FinishedSteps:
    """The finished steps: their number, and the state carried on from them."""

    steps: int
    running: RunningFeatures
    state: State | None


class StayStream:
    """A stay's measurements so far, and the state after the finished steps.

    Args:
        model: scores the stay.
        steps: number of steps T of the study's window.
    """

    def __init__(self, model: StreamedModel, steps: int) -> None:
        columns = len(model.layout.names)
        self.step = 0
        self._model = model
        self._z_TC = np.full((steps, columns), np.nan, dtype=np.float32)
        self._hour_TC = np.full((steps, columns), -np.inf, dtype=np.float32)
        self._x_TF = np.zeros((0 if model.stepwise else steps, model.layout.features), np.float32)
        start = None if model.stepwise is None else model.stepwise.start(len(model.keep_NF))
        first = FinishedSteps(steps=0, running=RunningFeatures.start(model.layout), state=start)
        self._first, self._older, self._newer, self._now = first, first, first, first

    def put(self, step: int, column: int, hours: float, value: float) -> None:
        """Add a measurement; a step keeps its latest one, of equal times the last one added.

        Args:
            step: the step in which it was made.
            column: the variable, or column of codes.
            hours: when it was made.
            value: normalised value, or number of a code.
        """
        if hours < self._hour_TC[step, column]:
            return
        self._hour_TC[step, column], self._z_TC[step, column] = hours, value
        if step < self._now.steps:
            kept = (self._newer, self._older, self._first)
            self._now = next(closed for closed in kept if closed.steps <= step)
            self._newer, self._older = self._now, self._first
        self.advance(step)

    def advance(self, step: int) -> None:
        """Move the stay on to this step, unless it is there or beyond."""
        self.step = max(self.step, step)

    def mean_of(self, column: int) -> float:
        """Return the mean of a column's values, one per step with a measurement."""
        return float(np.nanmean(self._z_TC[: self.step + 1, column]))

    def logits(self) -> Array:
        """Return the logits (N, K) as of the current step."""
        while self._now.steps < self.step:
            self._close()
        x_F = self._now.running.inputs(self._z_TC[self.step])
        stepwise, state = self._model.stepwise, self._now.state
        if stepwise is not None and state is not None:
            return stepwise.step(state, self._model.keep_NF * x_F)[1]
        self._x_TF[self.step] = x_F
        so_far = slice(0, self.step + 1)
        measured_C = np.any(~np.isnan(self._z_TC[so_far]), axis=0)
        return self._model.read_window(self._x_TF[so_far], measured_C)

    def _close(self) -> None:
        """Finish the oldest unfinished step."""
        now, z_C = self._now, self._z_TC[self._now.steps]
        x_F, state = now.running.inputs(z_C), now.state
        if self._model.stepwise is not None and state is not None:
            state = self._model.stepwise.step(state, self._model.keep_NF * x_F)[0]
        else:
            self._x_TF[now.steps] = x_F
        self._now = FinishedSteps(
            steps=now.steps + 1, running=now.running.after_step(z_C), state=state
        )
        if self._now.steps % SNAPSHOT_STEPS == 0:
            self._older, self._newer = self._newer, self._now
