"""A process that computes the vectors of some of a simulation's sites, and adds them.

    python -m consilium.simulations.federation.site_process FD

It is started by :mod:`consilium.simulations.federation.site_processes` and answers on the
inherited connection FD until that is closed. Both ends are one program on one machine, and one user
owns both, so what they say to each other is pickled.
"""

import pickle
import sys
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from consilium.client.hospital.personal_store import PersonalStore
from consilium.client.round.round_model import RoundModel
from consilium.server.processes.freed_memory import give_back_freed_memory
from consilium.simulations.federation.clear_site import ClearSite, Question
from consilium.simulations.federation.far_site import FarSite
from consilium.simulations.federation.out_folder import SITES
from consilium.simulations.federation.vector_sums import SumsHere


@dataclass(frozen=True, kw_only=True)
class Start:
    """What a process begins with: its sites and the run's folder."""

    sites: tuple[FarSite, ...]
    folder: Path


@dataclass(frozen=True, kw_only=True)
class Ask:
    """One round's question to some of the sites; vectors of ``lost`` ones are left out."""

    question: Question
    sites: Sequence[str]
    lost: Collection[str]


def send(connection: Connection, what: Any) -> None:
    """Send a message."""
    connection.send_bytes(pickle.dumps(what, protocol=pickle.HIGHEST_PROTOCOL))


def receive(connection: Connection) -> Any:
    """Return the next message.

    Raises:
        EOFError: the other end is gone.
    """
    return pickle.loads(connection.recv_bytes())  # noqa: S301 - from our own other end


def serve(connection: Connection) -> None:
    """Compute what is asked for, until the other end is gone."""
    start: Start = receive(connection)
    study = start.sites[0].study
    model = RoundModel(study)
    sites = {
        one.site: ClearSite(
            one.site,
            study,
            one.cohort,
            one.policy,
            PersonalStore(start.folder / SITES / one.site / "personal"),
            one.parameters,
            model,
        )
        for one in start.sites
    }
    with ThreadPoolExecutor(1) as pool:
        clip_norm = study.privacy.clip_norm
        sums = SumsHere(sites, model=model, clip_norm=clip_norm, pool=pool, workers=1)
        while True:
            asked: Ask = receive(connection)
            send(connection, sums.add(asked.question, asked.sites, asked.lost))


def main() -> None:
    """Serve the connection that the first argument names; its end is the end."""
    give_back_freed_memory()
    try:
        serve(Connection(int(sys.argv[1])))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return


if __name__ == "__main__":
    main()
