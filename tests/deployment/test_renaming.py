"""A coordinator under other names, behind a proxy that passes TLS through, and a site's proxy."""

import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from consilium.client.hospital.folder import SiteFolder
from consilium.server.coordinator.folder import CoordinatorFolder
from tests.deployment.federation import Federation, free_port
from tests.needs import PATIENCE_S, missing

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

PROXIES = Path(__file__).resolve().parents[2] / "deploy" / "proxy"
CONNECTED = "connected to"  # in a site's log
TINYPROXY = """
Port {port}
Listen 127.0.0.1
Timeout 600
BasicAuth north se-cret
ConnectPort {back}
"""


@contextmanager
def one_enrolled(folder: Path) -> Iterator[Federation]:
    made = Federation(root=folder / "run", records=folder, sites={"north": 1})
    try:
        made.prepare()
        made.serve()
        yield made
    finally:
        made.close()


@pytest.fixture
def one_site(tmp_path: Path):
    with one_enrolled(tmp_path) as made:
        yield made


@pytest.fixture(scope="module")
def behind_proxies(tmp_path_factory: pytest.TempPathFactory):
    """One for all tests of proxies: each begins with the address that it needs."""
    with one_enrolled(tmp_path_factory.mktemp("proxies")) as made:
        yield made


def test_a_coordinator_is_renamed_and_its_sites_follow_by_its_key(one_site: Federation) -> None:
    told = one_site.operator("rename", "localhost")
    assert "for localhost, 127.0.0.1" in told
    opened = CoordinatorFolder.open(one_site.coordinator)
    assert (opened.settings.host, opened.certificates.names()[0]) == ("localhost", "localhost")
    wrong = one_site.hospital("north", "coordinator", f"localhost:{free_port()}", fails=True)
    assert "cannot be reached" in wrong
    one_site.hospital("north", "coordinator", "localhost")
    assert SiteFolder.open(one_site.site("north")).enrolment().host == "localhost"
    one_site.hospital("north", "studies")
    one_site.operator("audit", "verify")
    one_site.hospital("north", "audit", "verify")


def test_another_coordinator_under_the_name_is_refused(
    one_site: Federation, tmp_path: Path
) -> None:
    other = Federation(root=tmp_path / "other", records=tmp_path, sites={})
    other.prepare()
    other.serve()
    try:
        told = one_site.hospital("north", "coordinator", f"127.0.0.1:{other.port}", fails=True)
        assert "does not show the certificate that was pinned" in told
        assert SiteFolder.open(one_site.site("north")).enrolment().port == one_site.port
    finally:
        other.close()


def program(name: str, package: str) -> str:
    found = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin")
    if found is None:
        missing(name, package)
    return found


def haproxy(file: Path) -> list[str]:
    return [program("haproxy", "haproxy"), "-db", "-f", str(file)]


def nginx(file: Path) -> list[str]:
    if not Path("/usr/lib/nginx/modules/ngx_stream_module.so").exists():
        missing("nginx", "nginx libnginx-mod-stream")
    command = [program("nginx", "nginx libnginx-mod-stream"), "-e", "stderr"]
    return [*command, "-g", "daemon off;", "-c", str(file)]


def written_anew(example: Path, place: Path, marked: dict[str, str]) -> Path:
    """A copy of an example of ours in which the lines marked with a comment name other places."""
    text = example.read_text()
    for comment, value in marked.items():
        text, times = re.subn(rf"[^\s;]+(?=;?\s+# {comment}$)", value, text, flags=re.MULTILINE)
        assert times == 1, comment
    file = place / example.name
    file.write_text(text)
    return file


@contextmanager
def running(command: list[str], port: int) -> Iterator[None]:
    """A program that listens on a port of this machine."""
    process = subprocess.Popen(command)
    try:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield
    finally:
        process.terminate()
        process.wait()


@pytest.mark.parametrize(
    ("example", "command"),
    [("haproxy.cfg", haproxy), ("nginx.conf", nginx)],
    ids=["haproxy", "nginx"],
)
def test_a_proxy_that_passes_tls_through_is_just_another_address(
    behind_proxies: Federation, tmp_path: Path, example: str, command: Callable[[Path], list[str]]
) -> None:
    front = free_port()
    places = {
        "address for sites": f"127.0.0.1:{front}",
        "address of the coordinator": f"127.0.0.1:{behind_proxies.port}",
    }
    if example == "nginx.conf":
        places["file of the process"] = str(tmp_path / "nginx.pid")
    file = written_anew(PROXIES / example, tmp_path, places)
    with running(command(file), front):
        behind_proxies.hospital("north", "coordinator", f"127.0.0.1:{front}")
        assert SiteFolder.open(behind_proxies.site("north")).enrolment().port == front
        behind_proxies.hospital("north", "studies")
        assert "no process answers for this site" in behind_proxies.hospital(
            "north", "health", fails=True
        )
        connected = behind_proxies.said("north").count(CONNECTED)
        behind_proxies.start("north")
        behind_proxies.wait_for(
            lambda: behind_proxies.said("north").count(CONNECTED) > connected,
            "the site to reach its coordinator",
            30,
        )
        behind_proxies.hospital("north", "health")
        behind_proxies.kill("north", signal.SIGTERM)


def test_a_site_dials_through_a_proxy_of_its_hospital_with_its_account_there(
    behind_proxies: Federation,
) -> None:
    through, folder = free_port(), behind_proxies.site("north")
    file = behind_proxies.root / "tinyproxy.conf"
    file.write_text(TINYPROXY.format(port=through, back=behind_proxies.port))
    account = folder / "proxy-account"
    account.touch(mode=0o600)
    behind_proxies.hospital("north", "coordinator", f"127.0.0.1:{behind_proxies.port}")
    before = (folder / "site.toml").read_text()
    with (folder / "site.toml").open("a") as settings:
        settings.write(f'[proxy]\nurl = "http://127.0.0.1:{through}"\n')
        settings.write('credentials = "proxy-account"\n')
    command = [program("tinyproxy", "tinyproxy-bin"), "-d", "-c", str(file)]
    with running(command, through):
        account.write_text("north:wrong\n")
        told = behind_proxies.hospital("north", "studies", fails=True)
        assert "the proxy does not connect this site to" in told
        assert "wrong" not in told
        account.write_text("north:se-cret\n")
        behind_proxies.hospital("north", "studies")
        told = behind_proxies.hospital("north", "preflight")
        assert "127.0.0.1 is looked up by the proxy" in told
    assert "proxy" in behind_proxies.hospital("north", "studies", fails=True)  # and not past it
    (folder / "site.toml").write_text(before)
