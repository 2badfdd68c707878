"""A coordinator under other names, behind a proxy that passes TLS through, and a site's proxy."""

import shutil
import subprocess
import time
from pathlib import Path

import pytest

from consilium.client.hospital.folder import SiteFolder
from consilium.server.coordinator.folder import CoordinatorFolder
from tests.deployment.federation import Federation, free_port

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

HAPROXY = """
global
    maxconn 100
defaults
    mode tcp
    timeout connect 5s
    timeout client 60s
    timeout server 60s
listen consilium
    bind 127.0.0.1:{front}
    server coordinator 127.0.0.1:{back}
"""


@pytest.fixture
def one_site(tmp_path: Path):
    made = Federation(root=tmp_path / "run", records=tmp_path, sites={"north": 1})
    made.prepare()
    made.serve()
    yield made
    made.close()


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


@pytest.mark.skipif(shutil.which("haproxy") is None, reason="HAProxy is not installed")
def test_a_proxy_that_passes_tls_through_is_just_another_address(
    one_site: Federation, tmp_path: Path
) -> None:
    front = free_port()
    settings = tmp_path / "haproxy.cfg"
    settings.write_text(HAPROXY.format(front=front, back=one_site.port))
    haproxy = subprocess.Popen(["haproxy", "-f", str(settings), "-db"])
    try:
        deadline = time.monotonic() + 30
        while True:  # until it listens
            try:
                one_site.hospital("north", "coordinator", f"127.0.0.1:{front}")
                break
            except AssertionError:
                assert time.monotonic() < deadline
        assert SiteFolder.open(one_site.site("north")).enrolment().port == front
        one_site.hospital("north", "studies")
    finally:
        haproxy.terminate()
        haproxy.wait()
