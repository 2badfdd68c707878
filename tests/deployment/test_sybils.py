"""A coordinator that invents hospitals, or stands in for one, gets no approval and no round."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from consilium.client.hospital.folder import SiteFolder
from consilium.shared.audit.events import Refused, Vouched
from tests.deployment.federation import SITES, Federation, tiny_study, write_records
from tests.deployment.ledgers import events

pytestmark = pytest.mark.slow
INVENTED = SITES[1:]


@pytest.fixture
def federation(tmp_path: Path) -> Iterator[Federation]:
    """A coordinator that serves; its operator made every hospital but one itself."""
    write_records(tmp_path / "records", patients=10, seed=1)
    made = Federation(tmp_path / "federation", tmp_path / "records", vouching=False)
    made.prepare()
    made.serve()
    yield made
    made.close()


def told_by(federation: Federation, site: str) -> str:
    return json.loads(federation.hospital(site, "identity", "--json"))["words"]


def test_a_hospital_approves_no_study_with_invented_ones_and_no_stand_in(
    federation: Federation,
) -> None:
    federation.submit(tiny_study(), approve=False)
    told = federation.hospital("north", "review", "tiny", fails=True)
    assert all(f"  {site}: unknown\n" in told for site in INVENTED)
    assert "0 of the 3 sites summed with this one are vouched for" in told
    federation.hospital("north", "approve", "tiny", "--yes", fails=True)
    site = SiteFolder.open(federation.site("north"))
    refused = [event for event in events(site.path / "audit.jsonl") if isinstance(event, Refused)]
    assert [event.asked for event in refused] == ["review", "approve"]
    assert not list((site.path / "approvals").iterdir())

    for known in ("east", "south"):
        words = told_by(federation, known).split()
        federation.hospital("north", "vouch", known, *words)
    federation.hospital("north", "approve", "tiny", "--yes")
    vouched = [event for event in events(site.path / "audit.jsonl") if isinstance(event, Vouched)]
    assert [event.hospital for event in vouched] == ["east", "south"]

    # The coordinator puts a key of its own under the name of a hospital that was telephoned.
    federation.operator("revoke", "south", "--reason", "a test")
    federation.site("south").rename(federation.root / "the-real-south")
    federation.make_site("south", 3)
    federation.enrol("south")
    federation.submit(
        tiny_study(rounds=4).replace('"tiny"', '"stand-in"'), "stand-in", approve=False
    )
    for command in (["review", "stand-in"], ["approve", "stand-in", "--yes"]):
        told = federation.hospital("north", *command, fails=True)
        assert "its roster shows south under ANOTHER KEY than the one this site checked" in told
    assert "  south: NOT THE KEY THAT THIS SITE CHECKED" in federation.hospital(
        "north", "review", "stand-in", fails=True
    )


def test_a_study_approved_by_people_who_vouch_no_longer_is_refused_by_the_running_site(
    federation: Federation,
) -> None:
    federation.vouching = True
    federation.vouch()
    federation.offer(tiny_study())
    for known in ("east", "south"):
        federation.hospital("north", "vouch", "--withdraw", known)
    told = federation.hospital("north", "preflight", fails=True)
    assert "1 of the 3 sites summed with this one are vouched for" in told
    federation.kill("coordinator")
    federation.start("coordinator")
    for site in SITES:
        federation.start(site)
    sentence = "1 of the 3 sites summed with this one are vouched for"
    federation.wait_for(lambda: sentence in federation.said("north"), "the refusal", 60)
    words = told_by(federation, "east").split()
    federation.hospital("north", "vouch", "east", *words)
    federation.finish()
