"""How much a round adds to each side's audit log stays within what docs/operations.md says."""

import re
from pathlib import Path

from tests.client.hospital.test_round_audit import SessionSites, coordinator_log, run
from tests.deployment.operations_page import PAGE

KIB = 1024


def test_a_round_of_four_sites_adds_no_more_than_the_page_says(tmp_path: Path) -> None:
    said = re.search(r"adds at most (\d+) KiB to the coordinator's .* and (\d+) KiB to a", PAGE)
    assert said is not None
    sites, log = SessionSites(tmp_path), coordinator_log(tmp_path)
    logs = {"coordinator": log.path, "site": sites.log("a")}
    before = {side: path.stat().st_size for side, path in logs.items()}
    rounds = len(run(sites, log))
    grown = {side: (path.stat().st_size - before[side]) / rounds for side, path in logs.items()}
    bounds = {"coordinator": int(said[1]) * KIB, "site": int(said[2]) * KIB}
    assert all(grown[side] <= bounds[side] for side in logs), grown
    assert all(grown[side] >= bounds[side] / 4 for side in logs), grown  # the page says no fable
