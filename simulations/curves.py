"""The figure of a run: how it learned, what it spent, and whether its risks can be believed."""

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

BLUE, ORANGE, GREY = "#1f5fa8", "#c4601d", "#6b6b6b"
GROUPS = 10


def draw_curves(
    path: Path,
    study: Study,
    record: dict[str, Any],
    risks_N: NDArray[np.float64],
    outcomes_N: NDArray[np.bool_],
) -> None:
    """Write ``curves.png``: discrimination, loss and epsilon by round, and calibration.

    Args:
        path: of the picture.
        study: what was run.
        record: content of ``run.json``.
        risks_N: final model's risks of the test stays.
        outcomes_N: what happened to them.
    """
    figure = Figure(figsize=(10, 7.2), dpi=150, layout="constrained")
    label = "SYNTHETIC patients" if record["synthetic"] else "real patients"
    figure.suptitle(f"{study.title}\n{label}; {len(study.sites)} sites; {_privacy(record)}")
    axes = figure.subplots(2, 2)
    rounds = [r for r in record["rounds"] if r["void"] is None]
    _discrimination(axes[0, 0], rounds, record)
    _loss(axes[0, 1], rounds)
    _epsilon(axes[1, 0], rounds, record)
    _calibration(axes[1, 1], risks_N, outcomes_N)
    for axis in axes.flat:
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


def _discrimination(axis: Axes, rounds: list[dict[str, Any]], record: dict[str, Any]) -> None:
    number = np.arange(1, len(rounds) + 1)
    axis.plot(number, [r["test"]["auroc"] for r in rounds], color=BLUE, label="test patients")
    judged = [(n, r["validation"]) for n, r in zip(number, rounds, strict=True) if r["validation"]]
    points = [(n - 1, v["outputs"][0]["auroc"]) for n, v in judged if v["outputs"][0]]
    if points:
        axis.plot(*zip(*points, strict=True), ".", color=ORANGE, label="validation, by secure sum")
    final = record["test"]["auroc"]
    axis.axhspan(final["low"], final["high"], color=BLUE, alpha=0.12, lw=0)
    axis.annotate(
        f"final {final['value']:.3f} ({final['low']:.3f} to {final['high']:.3f})",
        xy=(0.98, 0.04),
        xycoords="axes fraction",
        ha="right",
        color=BLUE,
    )
    axis.set(title="Discrimination", xlabel="round", ylabel="AUROC")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.legend(loc="center right", frameon=False)


def _loss(axis: Axes, rounds: list[dict[str, Any]]) -> None:
    number = np.arange(1, len(rounds) + 1)
    axis.plot(number, [r["test"]["loss"] for r in rounds], color=BLUE)
    axis.set(title="Cross entropy of test patients", xlabel="round", ylabel="nats a patient")
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


def _calibration(axis: Axes, risks_N: NDArray[np.float64], outcomes_N: NDArray[np.bool_]) -> None:
    """Draw observed against predicted risk in tenths of the test patients, and their risks."""
    groups = np.array_split(np.argsort(risks_N), GROUPS)
    predicted = [risks_N[group].mean() for group in groups]
    observed = np.array([outcomes_N[group].mean() for group in groups])
    error = [1.96 * np.sqrt(o * (1 - o) / len(g)) for o, g in zip(observed, groups, strict=True)]
    top = max(*predicted, *(observed + error)) * 1.05
    axis.plot([0, top], [0, top], color=GREY, ls="--", label="perfect")
    axis.errorbar(predicted, observed, error, fmt="o", color=BLUE, label="tenths of patients")
    axis.set(
        title="Calibration of the final model", xlabel="predicted risk", ylabel="observed share"
    )
    axis.legend(loc="upper left", frameon=False)
