"""Sites that compute in processes give what sites in threads give, to the bit."""

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from consilium.shared.errors import UnreachableError
from consilium.shared.rounds.contents import Purpose, RoundConfiguration
from consilium.shared.secure_sum.fixed_point import Segment, VectorSpec
from consilium.shared.secure_sum.tail import TAIL
from consilium.shared.study.definition import Study, with_changes
from consilium.simulations.cohorts.study_cohorts import cohorts_for
from consilium.simulations.federation.clear_site import Question
from consilium.simulations.federation.faults import Fault, FaultKind
from consilium.simulations.federation.run import Federation, Finished
from consilium.simulations.federation.site_processes import (
    _dealt,
    site_processes,
    worth_processes,
)
from consilium.simulations.federation.vector_sums import Added, SumsHere
from consilium.simulations.figures.held_out import HeldOut
from tests.simulations.federation.test_clear_sum import STUDY, held_out, lost

__all__ = ["held_out"]  # a fixture
OWN_HEADS = with_changes(STUDY, personalisation={"parts": ["head"]})
FAULTS = (*lost("east", FaultKind.LOSE_REQUEST, 0), *lost("south", FaultKind.LOSE_REPLY, 1))


def children() -> list[int]:
    """The processes of sites that this process has; what Linux lists as children may lack some."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == os.getpid() and b"site_process" in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
    return found


class Nothing(SumsHere):
    """Adds nothing in this process."""

    def __init__(self) -> None:
        pass

    def add(self, question: Question, sites: Sequence[str], lost: Collection[str]) -> Added:
        return Added(total=np.zeros(question.spec.length + TAIL, np.uint32), refusals={})


def federation(
    study: Study, folder: Path, *, processes: bool, faults: tuple[Fault, ...] = ()
) -> Federation:
    sources = cohorts_for(study, None).sites
    return Federation(study, sources, folder, workers=2, faults=faults, processes=processes)


def ran(
    study: Study, test: HeldOut, folder: Path, *, processes: bool,
    faults: tuple[Fault, ...] = (), show: Callable[[dict[str, Any]], None] = lambda _: None,
) -> tuple[Finished, Federation]:  # fmt: skip
    here = federation(study, folder, processes=processes, faults=faults)
    return here.train(show, replace(test, study=study)), here


def test_processes_give_the_weights_and_records_of_threads_with_sites_lost_and_parts_kept(
    held_out: HeldOut, tmp_path: Path
) -> None:
    """And a Ctrl-C at the terminal reaches none of the processes: it goes to its session."""
    seen: list[int] = []

    def look(record: dict[str, Any]) -> None:
        del record
        seen.extend(children())
        assert all(os.getsid(pid) == pid for pid in children())

    threads, _ = ran(OWN_HEADS, held_out, tmp_path / "t", processes=False, faults=FAULTS)
    apart, _ = ran(OWN_HEADS, held_out, tmp_path / "p", processes=True, faults=FAULTS, show=look)
    assert apart.state.server.weights_D.tobytes() == threads.state.server.weights_D.tobytes()
    assert np.array_equal(apart.scores, threads.scores)
    for site, state in threads.own.items():
        mine = apart.own[site].server.average_D
        assert mine.tobytes() == state.server.average_D.tobytes()
    for ours, theirs in zip(apart.history, threads.history, strict=True):
        assert {k: v for k, v in ours.items() if k not in ("seconds", "phases")} == {
            k: v for k, v in theirs.items() if k not in ("seconds", "phases")
        }
    assert set(Counter(seen).values()) == {len(apart.history)}
    assert len(set(seen)) == 1  # two workers: this process is the other
    assert not children()


@pytest.mark.slow
def test_groups_of_sites_which_are_summed_at_the_same_time_ask_one_after_the_other(
    held_out: HeldOut, tmp_path: Path
) -> None:
    names = [f"hospital-{number}" for number in range(1, 10)]
    study = with_changes(
        STUDY, study={"sites": names}, aggregation={"groups": 3, "tolerated_collusion": 0}
    )
    gone = lost("hospital-5", FaultKind.LOSE_REPLY, 2)
    threads, _ = ran(study, held_out, tmp_path / "t", processes=False, faults=gone)
    apart, _ = ran(study, held_out, tmp_path / "p", processes=True, faults=gone)
    assert apart.state.server.weights_D.tobytes() == threads.state.server.weights_D.tobytes()
    assert [r["sites"] for r in apart.history] == [r["sites"] for r in threads.history]
    assert {len(record["sites"]) for record in apart.history} == {6, 9}


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["distributed", "site"])
def test_with_privacy_every_release_of_every_process_is_in_its_sites_ledger(
    held_out: HeldOut, tmp_path: Path, mode: str
) -> None:
    study = with_changes(STUDY, privacy={"mode": mode}, training={"local_steps": 1})
    entries = {}
    for processes in (False, True):
        _, here = ran(
            study, held_out, tmp_path / str(processes), processes=processes, faults=FAULTS
        )
        entries[processes] = {
            site: [(e.release, e.confirmed) for e in here.ledger(site).entries()]
            for site in study.sites
        }
    keep = {
        processes: {
            site: [(r.round, r.purpose, r.events, r.shards, done) for r, done in found]
            for site, found in of_site.items()
        }
        for processes, of_site in entries.items()
    }
    assert keep[True] == keep[False]
    assert all(keep[True].values())


@pytest.mark.slow
def test_a_process_that_is_killed_ends_the_run_which_goes_on_from_its_last_whole_round(
    held_out: HeldOut, tmp_path: Path
) -> None:
    def kill(record: dict[str, Any]) -> None:
        if record["round"] == 2:
            os.kill(children()[0], signal.SIGKILL)

    with pytest.raises(UnreachableError, match=r"has ended.*goes on from the last whole round"):
        ran(STUDY, held_out, tmp_path, processes=True, show=kill)
    assert not children()
    done, _ = ran(STUDY, held_out, tmp_path, processes=True)
    assert [record["round"] for record in done.history[:2]] == [1, 2]
    assert done.state.finished
    assert not children()


def test_what_a_process_cannot_compute_is_a_refusal_and_files_nearby_are_not_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("consilium", "client", "torch", "numpy"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('a stranger')\n")
    monkeypatch.chdir(tmp_path)
    here = federation(OWN_HEADS, tmp_path / "run", processes=True)
    (group,) = here._parameters(here._checkpoint())
    far = list(here._far_sites((group,)).values())
    spec = VectorSpec(ring_bits=32, segments=(Segment(name="x", length=3, linf=1.0),))
    question = Question(
        asked=RoundConfiguration(purpose=Purpose.STATISTICS),
        received_D=np.zeros(1, np.float32),
        round=1,
        spec=spec,
    )
    with site_processes(far, tmp_path / "run", Nothing(), workers=5) as processes:
        assert len(children()) == 3  # four sites, one of which is this process's
        added = processes.add(question, list(OWN_HEADS.sites), [])
        again = processes.add(question, [], [])
    assert len(added.refusals) == 3
    assert not added.total.any()
    assert not again.refusals
    assert not children()


SCRIPT = """
from pathlib import Path
from consilium.simulations.cohorts.study_cohorts import cohorts_for
from consilium.simulations.federation.run import Federation
from consilium.simulations.figures.held_out import HeldOut
from tests.simulations.federation.test_clear_sum import STUDY

print("once")
cohorts = cohorts_for(STUDY, None)
federation = Federation(STUDY, cohorts.sites, Path("run"), workers=2, processes=True)
federation.train(lambda record: None, HeldOut.read(cohorts.test, STUDY))
print("done")
"""


@pytest.mark.slow
def test_a_script_needs_no_guard(tmp_path: Path) -> None:
    """A process that imported the user's script again would run it again."""
    (tmp_path / "script.py").write_text(SCRIPT)
    path = os.pathsep.join(entry for entry in sys.path if entry)
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, check=False,
        env=os.environ | {"PYTHONPATH": path},
    )  # fmt: skip
    assert (done.stdout.split(), done.returncode) == (["once", "done"], 0), done.stderr


def test_an_error_in_the_run_leaves_no_process(held_out: HeldOut, tmp_path: Path) -> None:
    def stop(record: dict[str, Any]) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ran(STUDY, held_out, tmp_path, processes=True, show=stop)
    assert not children()


def test_sites_are_dealt_by_their_patients(tmp_path: Path) -> None:
    here = federation(STUDY, tmp_path, processes=True)
    (group,) = here._parameters(here._checkpoint())
    far = list(here._far_sites((group,)).values())
    hands = _dealt(far, 2)
    assert sorted(one.site for hand in hands for one in hand) == sorted(STUDY.sites)
    loads = [sum(one.cohort.training.patients for one in hand) for hand in hands]
    largest = max(one.cohort.training.patients for one in far)
    assert max(loads) - min(loads) <= largest


@pytest.mark.parametrize(
    ("sites", "rounds", "workers", "worth"),
    [(8, 1000, 2, False), (16, 124, 2, False), (16, 125, 2, True), (200, 100, 1, False)],
)
def test_few_answers_are_not_worth_a_process(
    sites: int, rounds: int, workers: int, worth: bool
) -> None:
    assert worth_processes(sites, rounds, workers) is worth
