"""The sites of a simulation on all cores: each process computes for some of them, as does this one.

Threads share one interpreter, which many small sites keep busy; processes do not. They start once a
run, with the records of their sites, and answer with sums, so what travels in a round does not
grow with the number of sites. Ledgers and checks stay with the process that runs the study.
"""

import heapq
import os
import subprocess
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Lock

import numpy as np

from consilium.shared.errors import UnreachableError
from consilium.simulations.federation.clear_site import Question
from consilium.simulations.federation.far_site import FarSite
from consilium.simulations.federation.site_process import Ask, Start, receive, send
from consilium.simulations.federation.vector_sums import Added, SumsHere

LEAST_SITES, LEAST_ANSWERS = 16, 2000  # below, a process's start takes longer than it saves
ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
PATIENCE_S = 10.0  # for a process to end by itself


def worth_processes(sites: int, rounds: int, workers: int) -> bool:
    """Return whether so many sites and rounds are computed sooner by processes than by threads."""
    return workers > 1 and sites >= LEAST_SITES and sites * rounds >= LEAST_ANSWERS


class SiteProcesses:
    """Processes that compute for the sites that each was given; see :func:`site_processes`."""

    def __init__(
        self, here: SumsHere, elsewhere: Mapping[str, int], connections: Sequence[Connection]
    ) -> None:
        self._here, self._elsewhere, self._connections = here, elsewhere, connections
        self._asking = Lock()  # groups of sites are summed in threads of their own

    def add(self, question: Question, sites: Sequence[str], lost: Collection[str]) -> Added:
        """See :meth:`.VectorSums.add`.

        Raises:
            UnreachableError: a process has ended; what it computed is lost, and the round with it.
        """
        own: list[str] = []
        others: list[list[str]] = [[] for _ in self._connections]
        for site in sites:
            number = self._elsewhere.get(site)
            (own if number is None else others[number]).append(site)
        with self._asking:
            with _told_if_ended():
                for connection, asked in zip(self._connections, others, strict=True):
                    send(connection, Ask(question=question, sites=asked, lost=tuple(lost)))
            here = self._here.add(question, own, lost)
            total, refusals = here.total, dict(here.refusals)
            with _told_if_ended():
                for connection in self._connections:
                    added: Added = receive(connection)
                    np.add(total, added.total, out=total)
                    refusals |= added.refusals
        return Added(total=total, refusals=refusals)


@contextmanager
def site_processes(
    sites: Sequence[FarSite], folder: Path, here: SumsHere, *, workers: int
) -> Iterator[SiteProcesses]:
    """Start processes, deal the sites to them by their number of patients, and end them.

    Args:
        sites: all of a study.
        folder: the run's, in which sites keep a part of the model if the study says so.
        here: computes in this process, which takes a share as large as the others'.
        workers: how many processes, this one included.
    """
    _, *dealt = _dealt(sites, min(workers, len(sites)))
    connections: list[Connection] = []
    started: list[subprocess.Popen[bytes]] = []
    try:
        for _ in dealt:
            ours, theirs = Pipe()
            connections.append(ours)
            with theirs:
                started.append(_start(theirs))
        with _told_if_ended():
            for own, connection in zip(dealt, connections, strict=True):
                send(connection, Start(sites=tuple(own), folder=folder))
        elsewhere = {one.site: number for number, own in enumerate(dealt) for one in own}
        yield SiteProcesses(here, elsewhere, connections)
    finally:
        for connection in connections:
            connection.close()
        for process in started:
            with suppress(subprocess.TimeoutExpired):
                process.wait(PATIENCE_S)
            process.kill()
            process.wait()


@contextmanager
def _told_if_ended() -> Iterator[None]:
    """Say in a sentence that the other end of a connection is gone."""
    try:
        yield
    except (EOFError, OSError) as error:
        raise UnreachableError(
            "a process that computes for some of the sites has ended, for lack of memory or "
            "killed; the same command goes on from the last whole round"
        ) from error


def _start(connection: Connection) -> subprocess.Popen[bytes]:
    """Start a process with this end of a connection; it imports what this process would.

    A session of its own keeps the terminal's Ctrl-C from it: whoever asks decides when to stop.
    """
    number = connection.fileno()
    path = os.pathsep.join(entry for entry in sys.path if entry)
    return subprocess.Popen(  # noqa: S603 - ourselves
        [sys.executable, "-P", "-m", "consilium.simulations.federation.site_process", str(number)],
        pass_fds=[number],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
        env=os.environ | {"PYTHONPATH": path} | dict.fromkeys(ONE_THREAD, "1"),
    )


def _dealt(sites: Sequence[FarSite], workers: int) -> list[list[FarSite]]:
    """Deal sites to so many hands, of about as many patients each."""
    hands: list[list[FarSite]] = [[] for _ in range(workers)]
    least = [(0, number) for number in range(workers)]
    for one in sorted(sites, key=lambda one: one.cohort.training.patients, reverse=True):
        patients, number = heapq.heappop(least)
        hands[number].append(one)
        heapq.heappush(least, (patients + one.cohort.training.patients, number))
    return hands
