"""A run's rounds as CSV and as TensorBoard's event files: a column or curve for each figure."""

import csv
import io
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from consilium.shared.errors import SettingsError
from consilium.simulations.report.records import RUN, bytes_up

INSTALL = "pip install 'consilium-fl[tensorboard]'"

Round = Mapping[str, Any]


def read_rounds(path: Path) -> list[Round]:
    """Return the rounds of a run, by number.

    Args:
        path: the folder of a simulated run, its ``run.json``, or a coordinator's ``rounds.jsonl``.

    Raises:
        SettingsError: the file cannot be read, or holds no rounds.
    """
    file = path / RUN if path.is_dir() else path
    try:
        text = file.read_text(encoding="utf-8")
        if file.suffix == ".jsonl":
            rounds = [json.loads(line) for line in text.splitlines()]
        else:
            record = json.loads(text)
            rounds = [*record["rounds"], *record["other_rounds"]]
        found = sorted(rounds, key=lambda r: r["round"])
        for one in found:  # computing the figures now refuses a line that lacks something
            _ = one["purpose"], figures(one)
        return found
    except OSError as error:
        raise SettingsError(
            f"{file}: cannot be read ({error.strerror}); name the folder of a run, or a "
            "coordinator's rounds.jsonl"
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise SettingsError(
            f"{file}: holds no rounds of a run; name the folder of a run, or a coordinator's "
            "rounds.jsonl"
        ) from error


def figures(of: Round) -> dict[str, float]:
    """Return a round's numbers by name; those that it does not have are left out."""
    found = {
        "void": float(of["void"] is not None),
        "sites": len(of["sites"]),
        "refusals": len(of["refusals"]),
        "patients": of["patients"],
        "update_norm": of["update_norm"],
        "epsilon": of["epsilon"],
        "seconds": of["seconds"],
        "bytes_up_per_site": bytes_up([dict(of)]),
        **{f"seconds/{phase}": seconds for phase, seconds in of["phases"].items()},
        **{f"test/{name}": value for name, value in (of.get("test") or {}).items()},
        **_validation(of.get("validation") or {}),
    }
    return {k: float(v) for k, v in found.items() if v is not None and math.isfinite(v)}


def to_csv(rounds: list[Round]) -> str:
    """Return a line for each round: number, purpose and figures; a missing figure is empty."""
    rows = [figures(r) for r in rounds]
    names = list(dict.fromkeys(name for found in rows for name in found))
    written = io.StringIO()
    table = csv.writer(written, lineterminator="\n")
    table.writerow(["round", "purpose", *names])
    for r, found in zip(rounds, rows, strict=True):
        table.writerow([r["round"], r["purpose"], *(_cell(found.get(name)) for name in names)])
    return written.getvalue()


def write_tensorboard(rounds: list[Round], folder: Path) -> int:
    """Write the rounds as scalars of TensorBoard; return how many.

    A scalar's step is the round's number, its time the seconds of all rounds so far; so the axis
    *relative* shows the duration of the run.

    Raises:
        SettingsError: the writer is not installed, or the folder holds events already.
    """
    try:
        from tensorboardX import SummaryWriter  # an extra, so not imported above
    except ImportError as error:
        raise SettingsError(
            f"--tensorboard needs tensorboardX, which is not installed; {INSTALL}"
        ) from error
    if folder.exists() and any(folder.glob("events.out.tfevents.*")):
        raise SettingsError(
            f"--tensorboard {folder}: holds events already, and TensorBoard would mix them; name "
            "another folder"
        )
    try:
        with SummaryWriter(str(folder)) as writer:
            scalars = list(_scalars(rounds))
            for name, value, step, at in scalars:
                writer.add_scalar(name, value, global_step=step, walltime=at)
    except OSError as error:
        raise SettingsError(
            f"--tensorboard {folder}: cannot be written ({error.strerror}); name another folder"
        ) from error
    return len(scalars)


def _scalars(rounds: list[Round]) -> Iterator[tuple[str, float, int, float]]:
    at = 0.0
    for r in rounds:
        at += r["seconds"]
        for name, value in figures(r).items():
            yield name, value, r["round"], at


def _validation(validation: Mapping[str, Any]) -> dict[str, Any]:
    """Return figures of the sites' validation patients: means over the outputs that have them."""
    found = {
        f"validation/{name}": validation.get(name) for name in ("patients", "loss", "accuracy")
    }
    outputs = [output for output in validation.get("outputs", ()) if output]
    for name in ("auroc", "auprc", "brier") if outputs else ():
        found[f"validation/{name}"] = float(np.mean([output[name] for output in outputs]))
    if survival := validation.get("survival"):
        found["validation/c_index"] = survival["c_index"]["value"]
    errors = [value for value in validation.get("mae", ()) if value is not None]
    return found | ({"validation/mae": float(np.mean(errors))} if errors else {})


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.10g}"
