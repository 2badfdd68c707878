"""A site without a study holds little memory, before its first study and after its last."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.deployment.federation import Federation, tiny_study, write_records

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc is Linux's"),
]
IDLE_MIB = 150
# As 'consilium-site start', but that seconds without a message are long.
SOON_QUIET = """
from consilium.client.service import process
process.QUIET_S = 6.0
process.Action = ()
from consilium.client.cli import main
main()
"""


def resident_mib(pid: int) -> float:
    """Memory of a process that is in the machine's memory now."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmRSS:"))) / 1024


def has_pytorch(pid: int) -> bool:
    """Whether a process has mapped PyTorch's library."""
    return "libtorch" in Path(f"/proc/{pid}/maps").read_text()


def test_an_idle_site_is_small_and_is_small_again_after_a_study(tmp_path):
    write_records(tmp_path / "records", patients=60, seed=1)
    federation = Federation(root=tmp_path / "f", records=tmp_path / "records")
    federation.prepare()
    try:
        federation.start("coordinator")
        for site in ("east", "south", "west"):
            federation.start(site)
        with federation.log("north").open("ab") as log:
            north = subprocess.Popen(
                [sys.executable, "-c", SOON_QUIET, "start", "--folder", federation.site("north")],
                stdout=log,
                stderr=log,
                env=federation._environment("north"),
            )
        federation.processes["north"] = north

        def said(words: str) -> int:
            return federation.said("north").count(words)

        federation.wait_for(lambda: said("connected to") == 1, "the site to connect", 60)
        time.sleep(1.0)  # for memory that its start still held; a longer wait changes nothing
        assert not has_pytorch(north.pid)
        assert resident_mib(north.pid) < IDLE_MIB

        federation.offer(tiny_study(rounds=2))
        federation.finish()
        assert has_pytorch(north.pid)
        federation.wait_for(lambda: said("connected to") == 2, "the site to begin anew", 60)
        time.sleep(1.0)
        assert not has_pytorch(north.pid)
        assert resident_mib(north.pid) < IDLE_MIB
        again = tiny_study(rounds=2).replace('name = "tiny"', 'name = "second"')
        federation.offer(again)
        federation.finish(study="second")
        last = federation.records_of()[-1]
        assert "north" in last["sites"]
        federation.wait_for(lambda: said("connected to") == 3, "the site to begin anew", 60)
        north.terminate()
        assert north.wait(60) == 0
        assert "answers for this site" not in federation.said("north")
        federation.hospital("north", "audit", "verify")
    finally:
        federation.close()
