"""Takes the pictures of both sides' pages, of a made-up hospital and coordinator, in Chromium.

    PYTHONPATH=. python docs/web_screens.py

Needs Chromium or Google Chrome, and the folder of the tests beside this one.
"""

import argparse
import sys
import tempfile
from pathlib import Path
from unittest import mock

from screenshots import save_small

from consilium.client.commands.persons import ROLES
from consilium.client.web.pages import site_application
from consilium.server.commands.persons import ROLES as COORDINATOR_ROLES
from consilium.server.web.pages import coordinator_application
from consilium.shared.web.application import Application
from consilium.shared.web.users import Users
from tests.browser import Browser
from tests.client.web.made_up import POLICY, TEXT, Coordinator, identities, make_site, spend, vouch
from tests.server.web.made_up import make_coordinator
from tests.web_served import PASSWORD, QUICK, served

IMAGES = Path(__file__).parent / "images"
SIZE = (1120, 1000)  # pixels; a picture is as high as its page


def main() -> None:
    """Write both pictures and say how large they are."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--out", type=Path, default=IMAGES, help=f"their folder; {IMAGES}")
    parser.add_argument("--all", action="store_true", help="every page, to look at")
    chosen = parser.parse_args()
    chosen.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        for name, shot in (
            *site_shots(Path(folder), every=chosen.all),
            *coordinator_shots(Path(folder), every=chosen.all),
        ):
            save_small(shot, chosen.out / f"{name}.png")
            size = (chosen.out / f"{name}.png").stat().st_size
            sys.stdout.write(f"{chosen.out / name}.png: {size / 1000:.0f} kB\n")


def site_shots(folder: Path, *, every: bool) -> list[tuple[str, Path]]:
    """Return the pictures of the site's page, by name."""
    coordinator = Coordinator()
    site = make_site(folder / "site", folder / "records", policy=POLICY)
    study = coordinator.offer(TEXT, identities(site))
    users = Users(site.path, ROLES, command="x", cost=QUICK)
    users.set("Anna Meier", "steward", PASSWORD)
    vouch(site)
    spend(site, study, 3)
    one = f"/studies/{study.digest.hex()}"
    paths = {"site-page": one}
    if every:
        paths |= {
            f"site-{name}": f"/{name}"
            for name in ("overview", "studies", "budget", "models", "opt-outs", "audit")
        }
    with mock.patch("consilium.client.service.offers.connect", return_value=coordinator):
        application = site_application(site, users=users)
        return _taken(application, "Anna Meier", folder, paths, before=one)


def coordinator_shots(folder: Path, *, every: bool) -> list[tuple[str, Path]]:
    """Return the pictures of the operator's page, by name."""
    made = make_coordinator(folder / "coordinator", TEXT)
    users = Users(made.path, COORDINATOR_ROLES, command="x", cost=QUICK)
    users.set("Olga Lund", "operator", PASSWORD)
    paths = {"operator-page": "/overview"} | ({"operator-actions": "/actions"} if every else {})
    return _taken(coordinator_application(made), "Olga Lund", folder, paths)


def _taken(
    application: Application, person: str, folder: Path, paths: dict[str, str], before: str = ""
) -> list[tuple[str, Path]]:
    """Sign in, let the records of a study be checked, and take a picture of each page."""
    shots = []
    profile = folder / f"browser-{person[0]}"
    profile.mkdir()
    with served(application) as address, Browser(profile, size=SIZE) as browser:
        browser.go(address)
        browser.picture(folder / "sign-in.png")
        browser.type(person)
        browser.press("Tab")
        browser.type(PASSWORD)
        browser.press("Enter", leads_on=True)
        place = browser.run("location.href").removesuffix("/overview")
        if before:
            browser.go(place + before)
            browser.tab_to("Check the records")
            browser.press("Enter", leads_on=True)
            browser.wait_until("!document.body.innerText.includes('are being read')")
        for name, path in paths.items():
            browser.go(place + path)
            browser.run("document.activeElement.blur()")
            shot = folder / f"{name}.png"
            browser.picture(shot)
            shots.append((name, shot))
    return shots


if __name__ == "__main__":
    main()
