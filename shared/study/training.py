"""What a study says of learning: the task, the model, a site's steps, and the patients' privacy."""

from itertools import pairwise
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from consilium.shared.files.strict_toml import StrictTable
from consilium.shared.study.branches import Fraction, Model
from consilium.shared.study.dictionary import Finite, Positive
from consilium.shared.study.loss import Loss

__all__ = ["Model", "Privacy", "Task", "Training"]

CALIBRATION_FRACTION = 0.2  # of epsilon: training's noise grows by 3 %


class Task(StrictTable):
    """What the model predicts; ``outputs`` is the number of classes, labels or targets.

    In regression ``center`` and ``spread`` are public reference values of the target, in its unit:
    a typical value and a typical deviation. The model learns (target - center) / spread.
    ``prevalence`` is a public estimate of how often a binary outcome occurs (survival: by the
    horizon), where the model starts; what it is off by at the end of a binary or multi-label study,
    calibration rounds put right.

    In survival the label is a time and whether it ended with the event. ``cuts`` end the intervals
    whose hazards are learned, one output each; the last is the horizon. They count in ``time_unit``
    from ``start``: whoever had the event, or was lost, by then is not in the cohort.
    """

    kind: Literal["binary", "multiclass", "multilabel", "regression", "survival"] = "binary"
    outputs: int = Field(default=1, ge=1, le=4096)
    per_step: bool = False
    center: Finite = 0.0
    spread: Positive = 1.0
    prevalence: float | None = Field(default=None, gt=0, lt=1)
    cuts: tuple[Positive, ...] = Field(default=(), max_length=64, strict=False)
    start: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    time_unit: str = Field(default="days", min_length=1, max_length=32)
    loss: Loss = Loss()

    @model_validator(mode="after")
    def _outputs_fit_kind(self) -> Self:
        if self.kind != "regression" and (self.center, self.spread) != (0.0, 1.0):
            raise ValueError(
                f"center and spread are for a regression task, not {self.kind}; remove them"
            )
        if self.prevalence is not None and self.kind not in ("binary", "survival"):
            raise ValueError(
                f"prevalence is for a binary task or survival, not {self.kind}; remove it"
            )
        if self.kind == "binary" and self.outputs != 1:
            raise ValueError(f"outputs {self.outputs} must be 1 for a binary task")
        if self.kind == "multiclass" and self.outputs < 2:
            raise ValueError(f"outputs {self.outputs} must be at least 2 for a multiclass task")
        return self

    @model_validator(mode="before")
    @classmethod
    def _one_output_an_interval(cls, content: Any) -> Any:
        if isinstance(content, dict) and content.get("kind") == "survival":
            cuts = content.get("cuts")
            if isinstance(cuts, list | tuple) and "outputs" not in content:
                return {**content, "outputs": max(1, len(cuts))}
        return content

    @model_validator(mode="after")
    def _intervals_follow_each_other(self) -> Self:
        if self.kind != "survival":
            if self.cuts or self.start or self.time_unit != "days":
                raise ValueError(
                    f"cuts, start and time_unit are for survival, not {self.kind}; remove them"
                )
            return self
        if len(self.cuts) < 2:
            raise ValueError(
                f"cuts has {len(self.cuts)} entries, and survival needs the ends of at least 2 "
                "intervals; add some"
            )
        ends = (self.start, *self.cuts)
        if any(low >= high for low, high in pairwise(ends)):
            raise ValueError(
                f"cuts {list(self.cuts)} must ascend from start {self.start:g}; put them in order"
            )
        if self.outputs != len(self.cuts):
            raise ValueError(
                f"outputs {self.outputs} must be the number of cuts, {len(self.cuts)}; remove it"
            )
        if self.per_step:
            raise ValueError(
                "per_step is not for survival, whose label is one of a stay; remove it"
            )
        return self

    @model_validator(mode="after")
    def _loss_fits_outputs(self) -> Self:
        if self.kind in ("regression", "survival") and not self.loss.plain:
            raise ValueError(
                f"[task.loss] is for classes and labels, and a {self.kind} task has none; remove it"
            )
        weights = len(self.loss.weights)
        if weights not in (0, self.outputs):
            raise ValueError(
                f"[task.loss] weights has {weights} entries and must have one for each of the "
                f"{self.outputs} outputs; name every one"
            )
        return self


class Training(StrictTable):
    """What a site does with its own patients in one round.

    ``proximal`` is FedProx's mu: the local loss has mu / 2 times the squared distance to the
    weights that the round began with added to it. ``control_variates`` are SCAFFOLD's: every local
    step is corrected by how the site's mean gradient differs from all sites'. In privacy mode
    ``distributed`` a round is one step, whose length is ``[aggregation] server_learning_rate``
    alone; ``learning_rate`` is that of training at a site.
    """

    local_steps: int = Field(default=10, ge=1, le=10_000)
    sampling_rate: float = Field(default=0.1, gt=0, le=1)
    optimizer: Literal["sgd", "adam", "adamw", "rmsprop"] = "sgd"
    learning_rate: Positive = 0.1
    momentum: Fraction = 0.0
    weight_decay: float = Field(default=0.0, ge=0)
    l1: float = Field(default=0.0, ge=0)
    gradient_clip: float = Field(default=0.0, ge=0)
    proximal: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    control_variates: bool = False

    @model_validator(mode="after")
    def _steps_can_drift(self) -> Self:
        if self.control_variates and self.local_steps == 1:
            raise ValueError(
                "control_variates cancel in the sum over sites where each takes one step; raise "
                "local_steps above 1 or leave them out"
            )
        if self.control_variates and (self.optimizer != "sgd" or self.momentum):
            raise ValueError(
                f"control_variates are mean gradients, which steps of optimizer {self.optimizer!r} "
                f'with momentum {self.momentum:g} do not show; set optimizer = "sgd" and '
                "momentum = 0, or leave them out"
            )
        if self.control_variates and self.proximal:
            raise ValueError(
                f"control_variates and proximal {self.proximal:g} both hold back the same drift; "
                "keep one of the two"
            )
        if self.proximal and self.local_steps == 1:
            raise ValueError(
                f"proximal {self.proximal:g} holds a site near the weights a round began with, "
                "which one step never leaves; raise local_steps above 1 or set proximal = 0"
            )
        return self


class Privacy(StrictTable):
    """Patient-level differential privacy; ``none`` is for research on public data only.

    ``clip_norm`` bounds a patient's gradient (L2). ``statistics_fraction`` is the part of epsilon
    spent on the normalisation statistics, ``calibration_fraction`` the part spent on
    ``calibration_rounds``, sums over all training patients by which the finished model's risks are
    put right (:mod:`consilium.shared.privacy.calibration`); :attr:`Study.calibration_rounds` says
    how many there are where the study does not. ``unit`` is what counts as one patient: a person
    with all records, or, for records that name no person, each recording by itself. Then the
    guarantee holds for a recording: of a person with k of them epsilon bounds k times as much
    (Dwork and Roth 2014, theorem 2.2).
    """

    mode: Literal["none", "site", "distributed"] = "site"
    epsilon: Positive = 8.0
    delta: float = Field(default=1e-5, gt=0, le=0.01)
    clip_norm: Positive = 1.0
    statistics_fraction: float = Field(default=0.1, gt=0, lt=1)
    calibration_rounds: int | None = Field(default=None, ge=0, le=16)
    calibration_fraction: float = Field(default=CALIBRATION_FRACTION, gt=0, lt=1)
    unit: Literal["patient", "recording"] = "patient"

    @property
    def caveat(self) -> str:
        """What to say beside every guarantee; empty where a patient is a person."""
        if self.unit == "patient":
            return ""
        return (
            "The records name no persons, so each recording counts as a patient of its own: of a "
            "person with k recordings epsilon bounds k times as much."
        )
