"""The systemd units that ``init`` writes for the site and the coordinator."""

import importlib.util
import re

import pytest

from consilium.client.service.systemd_unit import write_unit as write_site_unit
from consilium.server.coordinator.systemd_unit import write_unit as write_coordinator_unit


def write_site(folder):
    return write_site_unit(folder, user="ward")


def write_coordinator(folder):
    return write_coordinator_unit(folder, user="ward")


@pytest.mark.parametrize("write", [write_site, write_coordinator])
def test_a_unit_starts_a_package_that_there_is_and_may_write_its_folder_only(tmp_path, write):
    unit = write(tmp_path).read_text()
    (package,) = re.findall(r"^ExecStart=\S+ -P -m (\S+) start --folder", unit, re.MULTILINE)
    assert importlib.util.find_spec(f"{package}.__main__") is not None
    assert f"start --folder {tmp_path}\nUser=ward\n" in unit
    assert re.findall("^ReadWritePaths=.*", unit, re.MULTILINE) == [f"ReadWritePaths={tmp_path}"]
    assert "{" not in unit


def test_each_unit_has_its_own_side_s_lines(tmp_path):
    site, coordinator = write_site(tmp_path).read_text(), write_coordinator(tmp_path).read_text()
    for line in ("SocketBindDeny=any", "TimeoutStopSec=60", "consilium-site.service"):
        assert line in site
        assert line not in coordinator
    for line in ("LimitNOFILE=16384", "KillMode=mixed", "TimeoutStopSec=30"):
        assert line in coordinator
        assert line not in site
