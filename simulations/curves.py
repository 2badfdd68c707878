"""The figure of a run: how it learned, what it spent, and whether its answers can be believed.

Legend: R rows (known outcomes of stays or steps), K outputs.
"""

import io
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from shared.atomic_file import write_atomically
from shared.study import Study
from simulations.measures import FIGURES, TITLES, Classes
from simulations.metrics import Truth

BLUE, ORANGE, GREY = "#1f5fa8", "#c4601d", "#6b6b6b"
GROUPS = 10
_MOST_POINTS = 2000  # of a scatter plot, drawn at random


def draw_curves(
    path: Path,
    study: Study,
    record: dict[str, Any],
    scores: NDArray[np.float64],
    truth: Truth,
) -> None:
    """Write ``curves.png``: first figure, loss and epsilon by round, and the final answers.

    Args:
        path: of the picture.
        study: what was run.
        record: content of ``run.json``.
        scores: final model's scores of the test stays (N, K) or (N, T, K).
        truth: what happened to them.
    """
    figure = Figure(figsize=(10, 7.2), dpi=150, layout="constrained")
    label = "SYNTHETIC patients" if record["synthetic"] else "real patients"
    figure.suptitle(f"{study.title}\n{label}; {len(study.sites)} sites; {_privacy(record)}")
    axes = figure.subplots(2, 2)
    rounds = [r for r in record["rounds"] if r["void"] is None]
    _first_figure(axes[0, 0], rounds, record, FIGURES[study.task.kind][0])
    _loss(axes[0, 1], rounds, study)
    _epsilon(axes[1, 0], rounds, record)
    scores_RK = truth.rows(scores)
    if study.task.kind == "multiclass":
        _confusion(axes[1, 1], Classes(scores_RK, truth.truth_R.astype(np.int64)), scores_RK)
    elif study.task.kind == "regression":
        _predictions(axes[1, 1], scores_RK.ravel(), truth.truth_R.ravel())
    else:
        known = ~np.isnan(truth.truth_R.ravel())
        outcomes = truth.truth_R.ravel()[known] == 1
        _calibration(axes[1, 1], scores_RK.ravel()[known], outcomes)
    for axis in axes.flat:
        if study.task.kind != "multiclass" or axis is not axes[1, 1]:
            axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    write_atomically(path, picture.getvalue())


def _privacy(record: dict[str, Any]) -> str:
    privacy = record["privacy"]
    if privacy["mode"] == "none":
        return "no differential privacy"
    return (
        f"patient-level ({privacy['epsilon']:.2f}, {privacy['delta']:g})-DP, mode {privacy['mode']}"
    )


def _first_figure(
    axis: Axes, rounds: list[dict[str, Any]], record: dict[str, Any], name: str
) -> None:
    number = np.arange(1, len(rounds) + 1)
    axis.plot(number, [r["test"][name] for r in rounds], color=BLUE, label="test patients")
    judged = [(n, r["validation"]) for n, r in zip(number, rounds, strict=True) if r["validation"]]
    points = [(n - 1, value) for n, v in judged if (value := _validated(v, name)) is not None]
    if points:
        axis.plot(*zip(*points, strict=True), ".", color=ORANGE, label="validation, by secure sum")
    final = record["test"][name]
    axis.axhspan(final["low"], final["high"], color=BLUE, alpha=0.12, lw=0)
    axis.annotate(
        f"final {final['value']:.3f} ({final['low']:.3f} to {final['high']:.3f})",
        xy=(0.98, 0.04),
        xycoords="axes fraction",
        ha="right",
        color=BLUE,
    )
    axis.set(title=TITLES[name], xlabel="round", ylabel=TITLES[name])
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.legend(loc="center right", frameon=False)


def _validated(validation: dict[str, Any], name: str) -> float | None:
    """The same figure from the sites' secure sums; the mean over outputs that have one."""
    if name == "auroc":
        values = [output[name] for output in validation["outputs"] if output]
    else:
        values = [value for value in np.ravel(validation[name]) if value is not None]
    return float(np.mean(values)) if values else None


def _loss(axis: Axes, rounds: list[dict[str, Any]], study: Study) -> None:
    number = np.arange(1, len(rounds) + 1)
    axis.plot(number, [r["test"]["loss"] for r in rounds], color=BLUE)
    if study.task.kind == "regression":
        axis.set(title="Squared error of test patients", ylabel="squared spreads a patient")
    else:
        axis.set(title="Cross entropy of test patients", ylabel="nats a patient")
    axis.set(xlabel="round")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))


def _epsilon(axis: Axes, rounds: list[dict[str, Any]], record: dict[str, Any]) -> None:
    axis.set(title="Privacy budget spent on a patient", xlabel="round", ylabel="epsilon")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    if record["privacy"]["epsilon"] is None:
        axis.text(0.5, 0.5, "no differential privacy", transform=axis.transAxes, ha="center")
        return
    number = np.arange(1, len(rounds) + 1)
    axis.step(number, [r["epsilon"] for r in rounds], where="mid", color=ORANGE)
    budget = record["privacy"]["epsilon_budget"]
    axis.axhline(budget, color=GREY, ls="--")
    axis.annotate(f"budget {budget:g}", xy=(1, budget), va="bottom", color=GREY)
    axis.set_ylim(0, budget * 1.15)


def _calibration(axis: Axes, risks_R: NDArray[np.float64], outcomes_R: NDArray[np.bool_]) -> None:
    """Draw observed against predicted risk in tenths of the known outcomes."""
    groups = np.array_split(np.argsort(risks_R), min(GROUPS, len(risks_R)))
    predicted = [risks_R[group].mean() for group in groups]
    observed = np.array([outcomes_R[group].mean() for group in groups])
    error = [1.96 * np.sqrt(o * (1 - o) / len(g)) for o, g in zip(observed, groups, strict=True)]
    top = max(*predicted, *(observed + error)) * 1.05
    axis.plot([0, top], [0, top], color=GREY, ls="--", label="perfect")
    axis.errorbar(predicted, observed, error, fmt="o", color=BLUE, label="tenths of outcomes")
    axis.set(
        title="Calibration of the final model", xlabel="predicted risk", ylabel="observed share"
    )
    axis.legend(loc="upper left", frameon=False)


def _confusion(axis: Axes, classes: Classes, scores_RK: NDArray[np.float64]) -> None:
    """Draw what share of each true class is taken for each class."""
    table_KK = classes.confusion(np.ones(len(scores_RK)))
    share_KK = table_KK / np.maximum(table_KK.sum(axis=1, keepdims=True), 1)
    axis.imshow(share_KK, cmap="Blues", vmin=0, vmax=1)
    if len(share_KK) <= GROUPS:
        for (row, column), share in np.ndenumerate(share_KK):
            colour = "white" if share > 0.5 else "black"
            axis.text(column, row, f"{share:.2f}", ha="center", va="center", color=colour)
    axis.set(title="Final model: share of each class", xlabel="taken for class", ylabel="class")
    for ticks in (axis.xaxis, axis.yaxis):
        ticks.set_major_locator(MaxNLocator(integer=True))


def _predictions(axis: Axes, value_R: NDArray[np.float64], truth_R: NDArray[np.float32]) -> None:
    """Draw predicted against true values of known targets."""
    rows = np.flatnonzero(~np.isnan(truth_R))
    if len(rows) > _MOST_POINTS:
        rows = np.random.default_rng(0).choice(rows, _MOST_POINTS, replace=False)
    axis.plot(truth_R[rows], value_R[rows], ".", color=BLUE, alpha=0.4, ms=4)
    ends = [float(truth_R[rows].min()), float(truth_R[rows].max())]
    axis.plot(ends, ends, color=GREY, ls="--", label="perfect")
    axis.set(title="Final model's predictions", xlabel="true value", ylabel="predicted value")
    axis.legend(loc="upper left", frameon=False)
