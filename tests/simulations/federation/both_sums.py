"""A run whose sum is that of the protocol or in the clear, and what both must have alike."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from consilium.client.sources.common.source import Source
from consilium.shared.study.definition import Study
from consilium.simulations.federation.faults import Fault
from consilium.simulations.federation.run import Federation, Finished
from consilium.simulations.figures.held_out import HeldOut

MEASURED = ("seconds", "phases", "sum")


@dataclass(frozen=True, kw_only=True)
class Ran:
    """A run, and what it said of its rounds."""

    finished: Finished
    records: list[dict[str, Any]]
    federation: Federation


def trained(
    study: Study,
    sources: Mapping[str, Source],
    test: HeldOut,
    folder: Path,
    *,
    protocol: bool,
    faults: tuple[Fault, ...] = (),
) -> Ran:
    records: list[dict[str, Any]] = []
    federation = Federation(study, sources, folder, workers=2, protocol=protocol, faults=faults)
    finished = federation.train(records.append, test)
    return Ran(finished=finished, records=records, federation=federation)


def told(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the records say beside times and how the sum was made."""
    return [{key: value for key, value in r.items() if key not in MEASURED} for r in records]


def require_the_same(protocol: Ran, clear: Ran) -> None:
    ours, theirs = clear.finished.state, protocol.finished.state
    assert ours.server.weights_D.tobytes() == theirs.server.weights_D.tobytes()
    assert ours.server.control_D.tobytes() == theirs.server.control_D.tobytes()
    assert ours.normalisation == theirs.normalisation
    assert ours.edges == theirs.edges
    assert np.array_equal(clear.finished.scores, protocol.finished.scores)
    for site, state in protocol.finished.own.items():
        mine = clear.finished.own[site]
        assert state.server.average_D.tobytes() == mine.server.average_D.tobytes()
        assert state.normalisation == mine.normalisation
    assert told(clear.records) == told(protocol.records)
    assert {record["sum"] for record in clear.records} == {"clear"}
    assert {record["sum"] for record in protocol.records} == {"protocol"}
