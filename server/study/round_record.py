"""The record of a round for people to read: sums and totals, no site's own numbers."""

from typing import Any

from consilium.server.study.run import RoundResult
from consilium.shared.privacy.accounting import plan
from consilium.shared.rounds.contents import Purpose
from consilium.shared.study.definition import Study


def round_record(study: Study, result: RoundResult) -> dict[str, Any]:
    """Return a round's record, as ``run.json`` holds it; see docs/run-json.md.

    Sites are in the order of their names, not of their replies, so equal rounds give equal records.
    """
    costs = plan(study)
    spent = None
    if costs is not None:
        spent = 0.0
        if result.state.normalisation:
            spent = costs.epsilon_after(result.state.trained, result.state.calibrated)
    return {
        "round": result.number,
        "purpose": result.purpose.value,
        "trained": result.state.trained,
        "void": result.void,
        "sites": list(result.survivors),
        "refusals": dict(sorted(result.refusals.items())),
        "left_out": list(result.left_out),
        "narrowing": result.narrowing,
        "next_left_out": list(result.state.left_out),
        "patients": result.patients,
        "update_norm": result.update_norm,
        "shift": list(result.shift_K) or None,
        "epsilon": spent,
        "seconds": result.seconds,
        "phases": result.phases,
        "bytes_up": dict(sorted(result.bytes_up.items())),
        "bytes_down": dict(sorted(result.bytes_down.items())),
        "validation": result.metrics.to_json(final=result.purpose is Purpose.EVALUATION)
        if result.metrics
        else None,
    }
