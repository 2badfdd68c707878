"""Kill a site at one line after another of those that write its stores, each time in a round anew.

Run as a program, which imports once, has no threads, and forks: ``kills.py FOLDER KILLS``. FOLDER
has ``sites`` (all hospitals' folders), and pickled by the test ``state`` (a RunState) and ``heads``
(encoded, by site); it gets a copy of ``sites`` for each kill, named by the line.
"""

import os
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from consilium.server.secure_sum.site_heads import SiteHeads
from consilium.shared.secure_sum.messages import Action
from tests.client.hospital.hospitals import VICTIM, Hospitals, copy

WRITERS = (
    "client/round/session.py",
    "client/ledger/store.py",
    "client/ledger/rows.py",
    "client/secure_sum/journal.py",
    "client/hospital/peer_heads.py",
    "client/hospital/personal_store.py",
    "client/hospital/round_audit.py",
    "shared/audit/log.py",
    "shared/files/atomic_file.py",
    "shared/files/sqlite_transaction.py",
)
KILLED = 9


def killed_at(folder: Path, root: Path, line: int) -> int:
    """Run a round in a process of its own, which ends at that line of the victim's; its status."""
    child = os.fork()
    if child == 0:
        try:
            hospitals = Hospitals(root)
            heads = SiteHeads(dict(hospitals.roster.members))
            for site, head in unpickled(folder / "heads").items():
                heads.note(site, head)
            session = hospitals.sessions[VICTIM]
            session.handle = traced(session.handle, line, root / "lines")
            hospitals.rounds(unpickled(folder / "state"), 1, heads)
            os._exit(0)
        except BaseException:
            sys.excepthook(*sys.exc_info())
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def unpickled(path: Path) -> Any:
    return pickle.loads(path.read_bytes())  # noqa: S301 - written by the test


def traced(handle: Callable, line: int, count: Path) -> Callable:
    """Let a site end at that line of those that write; with line 0 count them into a file."""
    passed = [0]

    def at_line(_: FrameType, event: str, __: object) -> Callable:
        if event == "line":
            passed[0] += 1
            if passed[0] == line:
                os._exit(KILLED)
        return at_line

    def at_call(frame: FrameType, *_: object) -> Callable | None:
        return at_line if frame.f_code.co_filename.endswith(WRITERS) else None

    def traced_handle(action: Action, body: bytes) -> object:
        if action not in (Action.UPDATE, Action.UNMASK):
            return handle(action, body)
        sys.settrace(at_call)
        try:
            return handle(action, body)
        finally:
            sys.settrace(None)
            count.write_text(str(passed[0]))

    return traced_handle


def main(folder: Path, kills: int) -> None:
    """Kill so many times, at lines evenly spread over the round."""
    whole = copy(folder / "sites", folder / "whole")
    assert killed_at(folder, whole, 0) == 0
    lines = int((whole / "lines").read_text())
    for number in range(kills):
        line = 1 + (lines - 1) * number // (kills - 1)
        root = copy(folder / "sites", folder / "killed" / str(line))
        assert killed_at(folder, root, line) == KILLED, (line, lines)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
