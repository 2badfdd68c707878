"""A coordinator that wants its own code to run at the site: a real site process, and lies."""

import hashlib
import io
import os
import pickle
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.supercore.fab import Fab

from consilium.client.hospital.folder import SiteFolder
from consilium.server.flower.database_link import LinkGrid, open_link
from consilium.shared.audit.events import Refused
from tests.deployment.federation import Federation, tiny_study, write_records
from tests.deployment.ledgers import events

pytestmark = pytest.mark.slow


class Trap:
    """Runs a command when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.marker}",)


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    root = tmp_path_factory.mktemp("malicious")
    write_records(root / "records", patients=10, seed=1)
    made = Federation(root / "federation", root / "records")
    made.prepare(tiny_study())
    made.serve()
    made.start("north")
    made.wait_for(lambda: "connected to" in made.said("north"), "the site to connect", 60)
    yield made
    made.close()


def node_of(federation: Federation, site: str) -> int:
    return int.from_bytes(SiteFolder.open(federation.site(site)).enrolment().node_id, "big")


def bundle(marker: Path) -> Fab:
    """An app bundle whose every part would leave a mark if it were imported or installed."""
    mark = f"import pathlib; pathlib.Path({str(marker)!r}).touch()\n"
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr(
            "pyproject.toml",
            '[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n'
            '[project]\nname = "client"\nversion = "9.9.9"\ndependencies = []\n'
            '[tool.flwr.app]\npublisher = "x"\n[tool.flwr.app.components]\n'
            'serverapp = "evil:app"\nclientapp = "consilium.client.service.flower_app:app"\n'
            "[tool.flwr.app.config]\n",
        )
        for name in (
            "client/__init__.py",
            "client/service/flower_app.py",
            "evil.py",
            "setup.py",
            "conftest.py",
        ):
            archive.writestr(name, mark)
        archive.writestr("../../../../../../tmp/escaped.py", mark)
    data = content.getvalue()
    return Fab(hash_str=hashlib.sha256(data).hexdigest(), content=data, verifications={})


def snapshot(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def test_no_bundle_message_or_pickle_of_the_coordinator_runs_or_is_written_at_the_site(
    federation: Federation, tmp_path: Path
) -> None:
    marker = tmp_path / "marker"
    site = federation.site("north")
    before = snapshot(site)
    link = open_link(federation.coordinator / "link.sqlite")
    fab = bundle(marker)
    link.store_fab(fab)
    trap = pickle.dumps(Trap(marker))
    objects = np.array([Trap(marker)], dtype=object)
    saved = io.BytesIO()
    np.save(saved, objects, allow_pickle=True)

    def record(data: bytes, stype: str) -> RecordDict:
        array = Array(dtype="object", shape=(1,), stype=stype, data=data)
        return RecordDict({"consilium": ArrayRecord({"consilium": array})})

    contents = [
        record(trap, "consilium"),
        record(trap, "pickle"),
        record(saved.getvalue(), "numpy.ndarray"),
        RecordDict({"config": ConfigRecord({"fab_hash": fab.hash_str, "run": trap})}),
        RecordDict({f"../../../{tmp_path}/x": ConfigRecord({"../../y": b"z"})}),
        RecordDict({}),
    ]
    kinds = ["query.update", "query.channel", "query.unmask", "query.name", "train", "evaluate",
             "train.default", "query.system"]  # fmt: skip
    with LinkGrid(federation.coordinator / "link.sqlite", tmp_path / "run") as grid:
        with link.session():
            from flwr.supercore.state.schema.linkstate_models import Run as RunModel
            from sqlalchemy import update

            with link.session() as session:
                session.execute(update(RunModel).values(fab_hash=fab.hash_str, fab_id="x/client"))
        node = node_of(federation, "north")
        messages = [Message(content, node, kind) for content in contents for kind in kinds]
        replies = list(grid.send_and_receive(messages, timeout=240))
        assert len(replies) == len(messages)
        name = Message(RecordDict({}), node, "query.name")
        [still_there] = grid.send_and_receive([name], timeout=80)
        assert still_there.has_content()
    assert not marker.exists()
    assert not Path("/tmp/escaped.py").exists()  # noqa: S108 - where the bundle would write
    grown = {
        name for name in snapshot(site) - before if not name.startswith(("metrics", "last-refusal"))
    }
    assert grown <= {"journal.sqlite-wal", "journal.sqlite-shm"}, grown
    assert "Traceback" not in federation.said("north")
    told = [event for event in events(site / "audit.jsonl") if isinstance(event, Refused)]
    assert told


def test_the_site_listens_on_nothing_and_dials_one_port(federation: Federation) -> None:
    pid = federation.processes["north"].pid
    found: list[tuple[list[str], set[int]]] = []

    def dialled() -> bool:
        found.append(_listening_and_peers(pid))
        return bool(found[-1][1])

    federation.wait_for(dialled, "a connection", 30)  # between two requests there may be none
    assert not any(listening for listening, _ in found)
    assert found[-1][1] == {federation.port}


def _listening_and_peers(pid: int) -> tuple[list[str], set[int]]:
    """Where a process listens, and the ports that it has dialled."""
    held: list[str] = []
    for file in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            held.append(str(file.readlink()))
    sockets = {name.removeprefix("socket:[").removesuffix("]") for name in held
               if name.startswith("socket:")}  # fmt: skip
    listening: list[str] = []
    peers: set[int] = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            parts = line.split()
            if parts[9] in sockets:
                if parts[3] == "0A":
                    listening.append(parts[1])
                peers.add(int(parts[2].rpartition(":")[2], 16))
    return listening, peers
