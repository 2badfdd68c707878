"""Sites behind a packet filter that lets them dial the coordinator's port, and nothing else."""

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from consilium.server.coordinator.register import Wanted
from tests.deployment.federation import SITES, Federation, free_port, tiny_study, write_records
from tests.deployment.ledgers import check_books

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
NAME = f"consilium{os.getpid()}"
OUTSIDE, INSIDE = "10.213.77.1", "10.213.77.2"
LINK = f"con{os.getpid()}"
FILTER = """
table inet site {{
  chain input {{
    type filter hook input priority 0; policy drop;
    ct state established accept
  }}
  chain output {{
    type filter hook output priority 0; policy drop;
    ct state established accept
    ip daddr {address} tcp dport {port} accept
  }}
}}
"""


def told(*command: str, text: str = "") -> str:
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=120)
    if done.returncode:
        raise OSError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


@pytest.fixture
def port() -> Iterator[int]:
    """A port outside a fresh network namespace, the only one that can be dialled from inside."""
    missing = [tool for tool in ("ip", "nft", "ss") if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed (packages iproute2 and nftables)")
    chosen, inside = free_port(), ("ip", "netns", "exec", NAME)
    try:
        told("ip", "netns", "add", NAME)
        told("ip", "link", "add", LINK, "type", "veth", "peer", "name", "eth0", "netns", NAME)
        told("ip", "address", "add", f"{OUTSIDE}/30", "dev", LINK)
        told("ip", "link", "set", LINK, "up")
        told(*inside, "ip", "address", "add", f"{INSIDE}/30", "dev", "eth0")
        told(*inside, "ip", "link", "set", "eth0", "up")
        told(*inside, "nft", "-f", "-", text=FILTER.format(address=OUTSIDE, port=chosen))
        yield chosen
    except OSError as error:
        pytest.skip(f"network namespaces with a packet filter are not permitted here: {error}")
    finally:
        for undo in (("link", "del", LINK), ("netns", "del", NAME)):
            with suppress(OSError):
                told("ip", *undo)


def dials(address: str, port: int) -> bool:
    """Whether a connection from inside the namespace comes about."""
    script = f"import socket; socket.create_connection(({address!r}, {port}), 2)"
    inside = ["ip", "netns", "exec", NAME, "python3", "-c", script]
    return subprocess.run(inside, capture_output=True, timeout=120).returncode == 0


def test_sites_that_can_only_dial_the_coordinators_port_enrol_and_take_part(
    port: int, tmp_path: Path
) -> None:
    write_records(tmp_path / "records", patients=30, seed=1)
    within = ["ip", "netns", "exec", NAME]
    federation = Federation(
        tmp_path / "federation", tmp_path / "records", port=port, host=OUTSIDE,
        wrappers=dict.fromkeys((*SITES, "site"), within),
    )  # fmt: skip
    try:
        federation.prepare(tiny_study(rounds=400))
        federation.start("coordinator")
        federation.wait_for(federation.is_serving, "the coordinator to serve", 30)
        with socket.create_server((OUTSIDE, 0)) as other:
            federation.wait_for(lambda: dials(OUTSIDE, port), "a line to the coordinator", 30)
            assert not dials(OUTSIDE, other.getsockname()[1]), "the filter lets everything out"

        # A fifth hospital enrols through it, and its preflight finds the line well.
        federation.make_site("fifth", 1)
        token = federation.operator("invite", "fifth")
        federation.hospital("fifth", "enroll", "-", said=token, name="site")
        assert "the coordinator" in federation.hospital("fifth", "preflight", name="site")

        for site in SITES:
            federation.start(site)
        federation.wait_for(
            lambda: sum(len(r["sites"]) == 4 for r in federation.records_of()) > 5, "rounds", 60
        )
        listening = told(*within, "ss", "--no-header", "--listening", "--tcp", "--udp", "--numeric")
        assert listening == "", f"something listens at the sites: {listening}"
        dialled = told(*within, "ss", "--no-header", "--tcp", "--numeric", "state", "established")
        peers = {line.split()[3] for line in dialled.splitlines()}
        assert peers == {f"{OUTSIDE}:{port}"}
        federation.want(Wanted.STOP)
    finally:
        federation.close()
    check_books(federation, private=False)
