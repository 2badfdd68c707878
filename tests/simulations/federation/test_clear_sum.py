"""The sum in the clear against the whole protocol: the same weights, figures and bytes."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from consilium.shared.study.definition import Study, parse_study
from consilium.simulations.cohorts.study_cohorts import cohorts_for
from consilium.simulations.federation.faults import Fault, FaultKind
from consilium.simulations.federation.run import Federation, Finished
from consilium.simulations.figures.held_out import HeldOut
from tests.simulations.passing_time import let_time_pass

TEXT = """
name = "tiny"
title = "Tiny"
rounds = 2
seed = 7
sites = ["north", "east", "south", "west"]
[data]
source = "synthetic-icu"
label = "In-hospital_death"
window_h = 12
minimum_patients = 5
[model]
hidden = 4
[training]
local_steps = 2
sampling_rate = 0.2
[privacy]
mode = "none"
[aggregation]
round_timeout_s = 600.0
[evaluation]
validation_fraction = 0.3
passes = 1
every = 2
[variables]
HR = { unit = "/min", low = 10, high = 300, center = 85, spread = 18 }
GCS = { unit = "{score}", low = 3, high = 15, center = 12, spread = 4 }
Age = { unit = "a", low = 15, high = 120, center = 64, spread = 17, role = "static" }
"""
STUDY = parse_study(TEXT)
MEASURED = ("seconds", "phases", "sum")


@pytest.fixture(autouse=True)
def _nobody_waits_for_what_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    let_time_pass(monkeypatch)


@pytest.fixture(scope="module")
def held_out() -> HeldOut:
    return HeldOut.read(cohorts_for(STUDY, None).test, STUDY)


@dataclass(frozen=True, kw_only=True)
class Ran:
    """A run, and what it said of its rounds."""

    finished: Finished
    records: list[dict[str, Any]]
    federation: Federation


def run(
    study: Study,
    test: HeldOut,
    folder: Path,
    *,
    protocol: bool,
    faults: tuple[Fault, ...] = (),
    workers: int = 2,
) -> Ran:
    records: list[dict[str, Any]] = []
    federation = Federation(
        study,
        cohorts_for(study, None).sites,
        folder,
        workers=workers,
        protocol=protocol,
        faults=faults,
    )
    finished = federation.train(records.append, replace(test, study=study))
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
    for site, state in theirs_own(protocol).items():
        mine = clear.finished.own[site]
        assert state.server.average_D.tobytes() == mine.server.average_D.tobytes()
        assert state.normalisation == mine.normalisation
    assert told(clear.records) == told(protocol.records)
    assert {record["sum"] for record in clear.records} == {"clear"}
    assert {record["sum"] for record in protocol.records} == {"protocol"}


def theirs_own(ran: Ran) -> Any:
    return ran.finished.own


def lost(site: str, kind: FaultKind, *occurrences: int) -> tuple[Fault, ...]:
    return tuple(
        Fault(site=site, message_type="query.update", occurrence=number, kind=kind, delay_s=1e9)
        for number in occurrences
    )


PATTERNS = {
    "nobody is lost": (),
    "a request is lost": lost("south", FaultKind.LOSE_REQUEST, 1),
    "a reply is lost": lost("south", FaultKind.LOSE_REPLY, 0, 2),
    "a site crashes": lost("east", FaultKind.CRASH, 1),
    "too few are left": (*lost("east", FaultKind.CRASH, 1), *lost("west", FaultKind.LOSE_REPLY, 1)),
}


@pytest.mark.parametrize("pattern", PATTERNS)
def test_weights_figures_and_bytes_are_the_protocols_to_the_bit(
    held_out: HeldOut, tmp_path: Path, pattern: str
) -> None:
    faults = PATTERNS[pattern]
    protocol = run(STUDY, held_out, tmp_path / "protocol", protocol=True, faults=faults)
    clear = run(STUDY, held_out, tmp_path / "clear", protocol=False, faults=faults)
    require_the_same(protocol, clear)
