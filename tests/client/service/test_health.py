"""A site is well while a process holds its folder and has reached its coordinator of late."""

import os
import time

import pytest

from consilium.client.hospital.folder import SiteFolder
from consilium.client.service.health import SILENT_S, check_health, note_contact
from consilium.shared.errors import UnreachableError


def test_a_site_is_well_while_its_process_reaches_the_coordinator(tmp_path):
    site = SiteFolder.make(tmp_path / "site")
    with pytest.raises(UnreachableError, match="no process answers for this site"):
        check_health(site.path)
    with site.hold():
        os.utime(site.path / "lock", (0, 0))
        with pytest.raises(UnreachableError, match="the coordinator was not reached for"):
            check_health(site.path)
        note_contact(site.path)
        check_health(site.path)
        with pytest.raises(UnreachableError, match="told by 'consilium-site preflight'"):
            check_health(site.path, now=time.time() + SILENT_S + 5)
    with pytest.raises(UnreachableError, match="no process answers for this site"):
        check_health(site.path)


def test_what_cannot_be_noted_stops_nobody(tmp_path):
    note_contact(tmp_path / "no folder")
