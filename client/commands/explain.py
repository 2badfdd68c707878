"""``consilium-site explain``: prints or draws the explanation of a model's output for one stay."""

import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from consilium.client.bedside.prediction import unlabelled
from consilium.client.explain.answers import answer
from consilium.client.explain.integrated_gradients import Explanation, explain
from consilium.client.records.features import to_grid, to_tensors
from consilium.client.records.windows import cut_for_scoring
from consilium.client.sources.common.source import Patient, Stay
from consilium.shared.errors import DataError, SettingsError
from consilium.shared.export.signed_model import SignedModel
from consilium.shared.files.atomic_file import write_private_output
from consilium.shared.service.terminal import Table

PICTURES = (".png", ".svg")
SHOWN = 12


def run_explain(
    signed: SignedModel,
    patients: Iterable[Patient],
    stay_id: str,
    console: Console,
    *,
    output: str = "",
    as_json: bool = False,
    plot: Path | None = None,
) -> None:
    """Find the stay, explain one of its outputs, and print the result; draw it if asked.

    Raises:
        DataError: no such stay, or the records cannot be read.
        SettingsError: no such output, or the picture cannot be written.
    """
    if plot is not None and plot.suffix not in PICTURES:
        raise SettingsError(f"--plot {plot}: must end in {' or '.join(PICTURES)}; rename it")
    outputs = signed.manifest.outputs
    if output and output not in outputs:
        raise SettingsError(f"--output {output}: is none of {', '.join(outputs)}; name one")
    number = outputs.index(output) if output else 0
    study = signed.trained.study
    patient = Patient(patient_id="", stays=(_find(cut_for_scoring(patients, study), stay_id),))
    grid = to_grid([unlabelled(patient, study)], study)
    inputs = to_tensors(grid, signed.trained.normalisation, study)
    found = explain(signed.trained, inputs.x_NTF[0, : int(inputs.mask_NT[0].sum())], output=number)
    if plot is not None:
        _draw(signed, found, outputs[number], plot)
    if as_json:
        console.print_json(json.dumps(_to_json(signed, found, number)))
        return
    _print(signed, found, number, console)
    if plot is not None:
        console.print(f"figure  {plot}", markup=False)


def _find(patients: Iterable[Patient], stay_id: str) -> Stay:
    for patient in patients:
        for stay in patient.stays:
            if stay.stay_id == stay_id:
                return stay
    raise DataError(
        f"no stay {stay_id[:40]!r} is among these records; 'predict' lists those that are"
    )


def _order(found: Explanation) -> list[int]:
    """Return the columns by size of effect, without those that have none."""
    size_C = np.maximum(np.abs(found.effect_TC.sum(axis=0)), np.abs(found.occlusion_C))
    return [int(c) for c in np.argsort(-size_C, kind="stable") if size_C[c] > 0]


def _label(found: Explanation, column: int) -> str:
    """Return the column's name, marked if it was never measured."""
    return found.columns[column] + ("" if found.measured_C[column] else ", never measured")


def _hours(signed: SignedModel, step: int) -> str:
    data = signed.trained.study.data
    return f"{step * data.step_h}-{(step + 1) * data.step_h}"


def _scale(signed: SignedModel) -> str:
    return "the target's unit" if signed.trained.study.task.kind == "regression" else "log-odds"


def _print(signed: SignedModel, found: Explanation, output: int, console: Console) -> None:
    known = answer(signed, output, found.value)
    interval = f" ({known['low']:.3g} to {known['high']:.3g})" if "low" in known else ""
    console.print(f"{known['name']}: {found.value:.3g}{interval}", markup=False, style="bold")
    clock = "hours" if signed.trained.study.data.clock == "hour" else "places"
    table = Table("variable", box=None, pad_edge=False)
    for heading in ("gradients", "absence", f"most in {clock}"):
        table.add_column(heading, justify="right")
    for column in _order(found)[:SHOWN]:
        effect_T = found.effect_TC[:, column]
        most = _hours(signed, int(np.abs(effect_T).argmax())) if effect_T.any() else "-"
        table.add_row(
            _label(found, column),
            f"{effect_T.sum():+.3f}" if effect_T.any() else "-",
            f"{found.occlusion_C[column]:+.3f}",
            most,
        )
    console.print(table, markup=False)
    console.print(
        f"In {_scale(signed)}. gradients: integrated from inputs that say nothing (all 0); "
        f"they sum to the change from them, but for {found.gap:.1g}. absence: what is lost without "
        "the variable. A value counts in every step it is carried to.",
        markup=False,
    )
    if found.attention_T is not None:
        places = np.argsort(-found.attention_T)[:3]
        steps = ", ".join(f"{_hours(signed, int(t))} ({found.attention_T[t]:.2f})" for t in places)
        console.print(f"attention most in {clock} {steps}", markup=False)


def _to_json(signed: SignedModel, found: Explanation, output: int) -> dict[str, Any]:
    return {
        "output": answer(signed, output, found.value),
        "scale": _scale(signed),
        "gap": found.gap,
        "attention": None if found.attention_T is None else found.attention_T.tolist(),
        "variables": [
            {
                "variable": found.columns[column],
                "measured": bool(found.measured_C[column]),
                "gradients": float(found.effect_TC[:, column].sum()),
                "absence": float(found.occlusion_C[column]),
                "gradients_by_step": found.effect_TC[:, column].tolist(),
            }
            for column in _order(found)
        ],
    }


def _draw(signed: SignedModel, found: Explanation, name: str, path: Path) -> None:
    """Draw a map of variables and steps, with the steps' attention above it, if any."""
    from matplotlib.figure import Figure  # slow to import, and only needed here

    shown = [column for column in _order(found) if found.effect_TC[:, column].any()][:SHOWN]
    if not shown:
        raise DataError("no variable has an effect in this stay, so there is nothing to draw")
    effect_CT = found.effect_TC[:, shown].T
    step_h, steps = signed.trained.study.data.step_h, effect_CT.shape[1]
    above = found.attention_T is not None
    figure = Figure(figsize=(9, 1.6 + 0.32 * len(shown) + above), dpi=150, layout="constrained")
    axes = figure.subplots(
        1 + above, squeeze=False, sharex=True,
        height_ratios=[1, 0.35 * len(shown)][-1 - above :],
    ).flat  # fmt: skip
    if found.attention_T is not None:
        middle = (np.arange(steps) + 0.5) * step_h
        axes[0].bar(middle, found.attention_T, width=step_h, color="#6b6b6b")
        axes[0].set_ylabel("attention")
    most = float(np.abs(effect_CT).max())
    image = axes[-1].imshow(
        effect_CT, aspect="auto", cmap="RdBu_r", vmin=-most, vmax=most, interpolation="nearest",
        extent=(0, steps * step_h, len(shown) - 0.5, -0.5),
    )  # fmt: skip
    totals = effect_CT.sum(axis=1)
    labels = [f"{_label(found, c)}  {total:+.2f}" for c, total in zip(shown, totals, strict=True)]
    axes[-1].set_yticks(range(len(shown)), labels)
    clock = "hours since the stay began"
    axes[-1].set_xlabel(clock if signed.trained.study.data.clock == "hour" else "place")
    figure.colorbar(image, ax=list(axes), label=f"effect in {_scale(signed)}", shrink=0.9)
    figure.suptitle(f"Why {name} is {found.value:.3g} for this stay: integrated gradients")
    picture = io.BytesIO()
    figure.savefig(picture, format=path.suffix[1:])
    write_private_output(path, picture.getvalue(), option="--plot")
