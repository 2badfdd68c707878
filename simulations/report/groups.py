"""Groups of test patients, read from ``run.json``: all, by hospital, by subgroup."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from consilium.shared.figures.risk_curves import OperatingPoint, Share, operating_points
from consilium.shared.figures.score_counts import Edges
from consilium.shared.files.json_record import JsonRecord

KINDS = {"all": "all", "site": "hospitals", "subgroup": "subgroups"}


@dataclass(frozen=True, kw_only=True)
class Group:
    """Some test patients, and how the model does on them; fields as in docs/run-json.md.

    ``figures`` is empty if the group is too small to judge. ``counts_2B`` counts risks by outcome
    and bin, scaled so that each patient weighs one, with however many rows; ``edges_L`` are the
    bins' edges. Both are None in tasks without risks.
    """

    kind: str
    name: str
    patients: int
    rows: float
    positives: float | None
    expected: float | None
    figures: Mapping[str, Share]
    calibration: Share | None
    counts_2B: NDArray[np.float64] | None
    edges_L: Edges | None


def read_groups(record: JsonRecord) -> tuple[Group, ...]:
    """Return the groups in a run's record, in its order."""
    text = record.get("bins")
    edges_L = None if text is None else np.array(text.split(), dtype=np.float32)
    return tuple(_group(entry, edges_L) for entry in record.get("groups") or ())


def everyone(groups: tuple[Group, ...]) -> Group | None:
    """Return the group of all test patients."""
    return next((group for group in groups if group.kind == "all"), None)


def points_of(group: Group | None) -> tuple[OperatingPoint, ...]:
    """Return what alarms would do with each edge as threshold; nothing without both outcomes."""
    if group is None or group.counts_2B is None or group.edges_L is None:
        return ()
    return operating_points(group.counts_2B, group.edges_L)


def share_of(estimate: JsonRecord | None) -> Share | None:
    """Return an estimate from ``run.json``; None unless it has a value and both bounds."""
    if estimate is None or any(estimate[key] is None for key in ("value", "low", "high")):
        return None
    return Share(value=estimate["value"], low=estimate["low"], high=estimate["high"])


def _group(entry: JsonRecord, edges_L: Edges | None) -> Group:
    figures = {name: share_of(e) for name, e in (entry["figures"] or {}).items()}
    return Group(
        kind=entry["kind"],
        name=entry["name"],
        patients=entry["patients"],
        rows=entry["rows"],
        positives=entry["positives"],
        expected=entry["expected"],
        figures={name: share for name, share in figures.items() if share is not None},
        calibration=share_of(entry["calibration"]),
        counts_2B=_counts(entry),
        edges_L=edges_L,
    )


def _counts(entry: JsonRecord) -> NDArray[np.float64] | None:
    if entry["negatives"] is None or not entry["rows"]:
        return None
    texts = entry["negatives"], entry["positives_by_bin"]
    weight = min(entry["patients"] / entry["rows"], 1.0)
    return np.array([[weight * float(n) for n in text.split()] for text in texts])
