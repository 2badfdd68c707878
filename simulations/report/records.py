"""The files that a run writes: ``run.json``, ``model.safetensors``, ``compare.json``.

The schema of the JSON files is documented in docs/run-json.md and versioned by ``schema``.
"""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from consilium.server.figures.groups import as_text
from consilium.server.figures.verdicts import verdicts
from consilium.server.study.run import RunState
from consilium.shared.files.atomic_file import write_atomically
from consilium.shared.files.json_record import JsonRecord
from consilium.shared.files.tensor_file import tensor_file
from consilium.shared.model.study_model import study_model
from consilium.shared.model.weight_vector import named_arrays
from consilium.shared.study.definition import Study
from consilium.shared.study.input_names import feature_names
from consilium.shared.version import VERSION
from consilium.simulations.cohorts.cohorts import Cohorts
from consilium.simulations.experiments.joining import Joining, joining_verdicts
from consilium.simulations.federation.clear_sum import CLEAR, PROTOCOL
from consilium.simulations.federation.run import Finished
from consilium.simulations.figures.metrics import HeldOutMetrics
from consilium.simulations.figures.subgroups import FiguresByGroup

RUN, COMPARE, STRATEGIES = "run.json", "compare.json", "strategies.json"
TUNE = "tune.json"
REPORT = "report.html"
SCHEMA = 1


def run_record(
    study: Study,
    cohorts: Cohorts,
    finished: Finished,
    *,
    seconds: float,
    joined: Joining | None = None,
) -> dict[str, Any]:
    """Return the content of ``run.json``; ``joined`` is what ``joining.joining`` returned."""
    trained = [record for record in finished.history if record["purpose"] == "training"]
    epsilon = finished.history[-1]["epsilon"] if finished.history else None
    return setting_record(
        study, cohorts, finished.test, seconds=seconds, groups=finished.by_site
    ) | {
        "rounds": trained,
        "other_rounds": [r for r in finished.history if r["purpose"] != "training"],
        "privacy": {
            "mode": study.privacy.mode,
            "epsilon": epsilon,
            "epsilon_budget": study.privacy.epsilon if epsilon is not None else None,
            "delta": study.privacy.delta if epsilon is not None else None,
            "unit": study.privacy.unit,
        },
        "sum": CLEAR if in_clear(finished.history) else PROTOCOL,
        "bytes_up_per_site_per_round": bytes_up(trained),
        "left_out": list(finished.state.left_out),
        "final_tables": finished.tables,
        **groups_record(finished.by_group, joined),
        "data": {
            site: {**asdict(source.report), "skipped": len(source.report.skipped)}
            for site, source in cohorts.sites.items()
        },
    }


def groups_record(by_group: FiguresByGroup, joined: Joining | None) -> dict[str, Any]:
    """Return the record's part about groups of test patients and joining, with all verdicts."""
    found = verdicts(by_group.groups, by_group.edges_L) + (
        joining_verdicts(joined) if joined else ()
    )
    return {
        "groups": [group.to_json() for group in by_group.groups],
        "bins": None if by_group.edges_L is None else as_text(by_group.edges_L),
        "joining": joined,
        "verdicts": [v.to_json() for v in sorted(found, key=lambda v: not v.serious)],
    }


def setting_record(
    study: Study,
    cohorts: Cohorts,
    test: HeldOutMetrics,
    *,
    seconds: float,
    groups: Mapping[str, HeldOutMetrics],
) -> dict[str, Any]:
    """Return the part of a record that every setting of a comparison has, federated or not."""
    by_group = {name: metrics.to_json() for name, metrics in groups.items()}
    return {
        "schema": SCHEMA,
        "study": study.name,
        "study_digest": study.digest.hex(),
        "study_declared": study.to_canonical_json().decode(),
        "software": VERSION,
        "synthetic": cohorts.synthetic,
        "test_cohort": cohorts.described,
        "rounds": [],
        "test": test.to_json(),
        **({"test_groups": by_group} if by_group else {}),
        "privacy": {"mode": "none", "epsilon": None, "delta": None},
        "seconds": seconds,
        "bytes_up_per_site_per_round": 0,
    }


def in_clear(rounds: Iterable[JsonRecord]) -> bool:
    """Return whether a round was summed in the clear; one that does not say ran the protocol."""
    return any(of.get("sum") == CLEAR for of in rounds)


def bytes_up(trained: list[dict[str, Any]]) -> int:
    """Return the mean number of bytes a site sent in a training round that was not void."""
    sent = [count for record in trained for count in record["bytes_up"].values()]
    return round(float(np.mean(sent))) if sent else 0


def calibration_sentence(study: Study, record: JsonRecord) -> str:
    """Return how calibration rounds put the risks right, in a sentence; empty without any."""
    if not study.calibration_rounds:
        return ""
    rounds = record.get("other_rounds") or ()
    shifts = [r["shift"] for r in rounds if r["purpose"] == "calibration" and r.get("shift")]
    if not shifts:
        return (
            "No calibration round gave a sum, so its risks are as training left them: clipping "
            "makes rare outcomes' too low."
        )
    moved = np.sum(shifts, axis=0)
    by = " to ".join(f"{end:+.2f}" for end in dict.fromkeys((moved.min(), moved.max())))
    return (
        f"After training, {len(shifts)} noised sum(s) over all training patients shifted its "
        f"log-odds by {by}; the model has it, and the epsilon covers it."
    )


def left_out_sentence(record: JsonRecord) -> str:
    """Return who was left out as a sender of garbage, in a sentence; empty if nobody ever was."""
    rounds = [*record["rounds"], *record.get("other_rounds", ())]
    without = sum(bool(r.get("left_out")) for r in rounds)
    if not (without or record.get("left_out")):
        return ""
    out = record.get("left_out") or ()
    whom = f"{', '.join(out)} {'is' if len(out) == 1 else 'are'} left out" if out else "nobody is"
    return (
        f"Somebody sent garbage into the sums; {without} rounds were asked of fewer hospitals to "
        f"find out who, and at the end {whom}."
    )


def size(count: float) -> str:
    """Return a number of bytes as text with a unit."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write JSON that a person can read, atomically."""
    write_atomically(
        path, (json.dumps(_finite(content), indent=1, allow_nan=False) + "\n").encode()
    )


def _finite(content: Any) -> Any:
    """Replace NaN and infinity, which JSON does not have, by null."""
    if isinstance(content, dict):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def write_model(path: Path, study: Study, state: RunState) -> None:
    """Write the global model's tensors by name, with what is needed to use them."""
    model = study_model(study, state.server.model_weights)
    metadata = {
        "study": study.to_canonical_json().decode(),
        "study_digest": study.digest.hex(),
        "features": json.dumps(feature_names(study)),
        "normalisation": state.normalisation.hex(),
    }
    write_atomically(path, tensor_file(named_arrays(model), metadata))
