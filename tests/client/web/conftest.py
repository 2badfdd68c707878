"""A made-up hospital, and its page served to persons who signed in."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from consilium.client.commands.persons import ROLES
from consilium.client.hospital.folder import SiteFolder
from consilium.client.web.pages import site_application
from consilium.shared.study.definition import Study
from consilium.shared.web.users import Users
from tests.client.service.test_roster_agreement import BY_HAND
from tests.client.service.test_roster_agreement import Study as ChangingStudy
from tests.client.web.changing_study import SITE, Line, Page
from tests.client.web.made_up import POLICY, TEXT, Coordinator, identities, make_site
from tests.in_process import memory_folder
from tests.web_served import PASSWORD, QUICK, Person, served

OPEN = "[privacy]\nallow_without_privacy = true\n"
PERSONS = {"Anna": "steward", "Bert": "steward", "Clara": "clinician", "Tom": "it"}


@dataclass(frozen=True, kw_only=True)
class Hospital:
    """A site, its coordinator, a study offered to it, and where its page is."""

    site: SiteFolder
    coordinator: Coordinator
    study: Study
    address: str

    @property
    def path(self) -> str:
        """The study's page, below a session's place."""
        return f"/studies/{self.study.digest.hex()}"

    def person(self, name: str) -> Person:
        """Somebody who signed in."""
        return Person(self.address, name)


@pytest.fixture(scope="session")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("records") / "files"


@pytest.fixture
def make(
    tmp_path: Path, records: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Hospital]]:
    """Makes a hospital whose policy has more lines, and serves its page."""
    running = []

    def made(more: str = "", text: str = TEXT) -> Hospital:
        coordinator = Coordinator()
        for module in ("service.offers", "commands.roster_decisions"):
            monkeypatch.setattr(f"consilium.client.{module}.connect", lambda _: coordinator)
        site = make_site(tmp_path / "site", records, policy=POLICY + more)
        study = coordinator.offer(text, identities(site))
        users = Users(site.path, ROLES, command="consilium-site web-user", cost=QUICK)
        for name, role in PERSONS.items():
            users.set(name, role, PASSWORD)
        serving = served(site_application(site, users=users))
        running.append(serving)
        return Hospital(
            site=site, coordinator=coordinator, study=study, address=serving.__enter__()
        )

    yield made
    for serving in running:
        serving.__exit__(None, None, None)


@pytest.fixture
def page(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Page]:
    """A hospital in a study that may change its sites; a parameter adds to its policy."""
    with memory_folder() as folder:
        study = ChangingStudy(folder, BY_HAND)
        own = study.hospitals[SITE]
        (own.folder.path / "policy.toml").write_text(OPEN + getattr(request, "param", ""))
        line = Line(own)
        for module in ("commands.roster_decisions", "service.offers"):
            monkeypatch.setattr(f"consilium.client.{module}.connect", lambda _: line)
        users = Users(own.folder.path, ROLES, command="consilium-site web-user", cost=QUICK)
        for name, role in PERSONS.items():
            users.set(name, role, PASSWORD)
        with served(site_application(own.folder, users=users)) as address:
            yield Page(study=study, line=line, address=address)
