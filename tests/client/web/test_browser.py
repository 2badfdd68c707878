"""The page in a real browser, with keys alone, and as a screen reader is given it."""

import itertools
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from consilium.client.service.pinned_connection import approvals_of
from consilium.server.commands.persons import ROLES as COORDINATOR_ROLES
from consilium.server.web.pages import coordinator_application
from consilium.shared.audit.events import RosterAgreed
from consilium.shared.web.users import Users
from tests.browser import Browser
from tests.client.web.changing_study import PATH, Page
from tests.client.web.conftest import Hospital
from tests.client.web.made_up import TEXT, spend
from tests.server.web.made_up import make_coordinator
from tests.web_served import PASSWORD, QUICK, served

pytestmark = pytest.mark.slow
Make = Callable[..., Hospital]
# The ratio of WCAG 2.2 (https://www.w3.org/TR/WCAG22/#contrast-minimum) of each piece of text.
FAINT = """
(() => {
  const parts = colour => (colour.match(/[\\d.]+/g) || []).map(Number);
  const light = colour => {
    const [r, g, b] = parts(colour).slice(0, 3).map(
      v => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = node => {
    for (; node; node = node.parentElement) {
      const colour = getComputedStyle(node).backgroundColor, alpha = parts(colour)[3];
      if (alpha === undefined || alpha === 1) return colour;
    }
    return 'rgb(255, 255, 255)';
  };
  const faint = [], walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  let seen = 0;
  while (walk.nextNode()) {
    const node = walk.currentNode.parentElement, text = walk.currentNode.textContent.trim();
    if (!text || !node.getClientRects().length) continue;
    const inside = node.closest('svg');
    const front = inside ? getComputedStyle(node).fill : getComputedStyle(node).color;
    const [a, b] = [light(front), light(behind(node))].sort((x, y) => y - x);
    seen += 1;
    if ((a + 0.05) / (b + 0.05) < 4.5) faint.push([text, front, behind(node)]);
  }
  return {faint, seen};
})()
"""
CONTROLS = {"textbox", "spinbutton", "checkbox", "button", "link", "combobox", "img"}


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    with Browser(tmp_path) as opened:
        yield opened


def sign_in(browser: Browser, address: str, name: str) -> str:
    """Sign in with keys alone; returns where the session's pages are."""
    browser.go(address)
    assert browser.focused() == "Your name"
    browser.type(name)
    browser.press("Tab")
    assert browser.focused() == "Password"
    browser.type(PASSWORD)
    browser.press("Enter", leads_on=True)
    return browser.run("location.href").removesuffix("/overview")


def check_page(browser: Browser) -> list[dict[str, Any]]:
    """What every page must give to those who see little or nothing."""
    nodes = browser.accessible()
    for node in nodes:
        if node["role"] in CONTROLS:
            assert node["name"].strip(), node
    levels = [int(node["level"]) for node in nodes if node["role"] == "heading"]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    roles = [node["role"] for node in nodes]
    assert roles.count("main") == 1
    assert roles.count("banner") == 1
    assert browser.run("document.documentElement.lang") == "en"
    found = browser.run(FAINT)
    assert found["seen"] > 5
    assert found["faint"] == []
    assert browser.run("document.scrollingElement.scrollWidth <= innerWidth")
    return nodes


def test_a_study_is_read_checked_and_approved_with_keys_alone(make: Make, browser: Browser) -> None:
    one = make()
    place = sign_in(browser, one.address, "Anna")
    browser.press("Tab")
    assert browser.focused() == "Skip to the content"
    browser.press("Enter")
    browser.tab_to("See what is offered")
    browser.press("Enter", leads_on=True)
    browser.tab_to("Death in the intensive-care unit")
    browser.press("Enter", leads_on=True)
    check_page(browser)
    browser.tab_to("Check the records")
    browser.press("Enter", leads_on=True)
    browser.wait_until("!document.body.innerText.includes('are being read')")
    check_page(browser)
    browser.tab_to("Size to declare")
    browser.tab_to("I have read what leaves")
    browser.tab_to("Approve this study")
    browser.press("Enter")  # without the tick: the browser itself asks for it
    assert browser.focused().startswith("I have read what leaves")
    assert approvals_of(one.site).stamp(one.study.digest) is None
    browser.press(" ")
    browser.tab_to("Approve this study")
    browser.press("Enter", leads_on=True)
    assert "Study sepsis is approved, with a declared size of 20" in browser.run(
        "document.querySelector('[role=status]').innerText"
    )
    assert approvals_of(one.site).stamp(one.study.digest) is not None
    spend(one.site, one.study, 3)
    for path in ("/overview", "/studies", one.path, f"{one.path}/hospitals", "/budget", "/models",
                 "/opt-outs", "/audit", "/machine"):  # fmt: skip
        browser.go(place + path)
        assert browser.run("location.href") == place + path
        check_page(browser)
    browser.tab_to("Sign out")
    browser.press("Enter", leads_on=True)
    browser.go(place + "/overview")
    assert browser.run("document.querySelector('h1').innerText") == "Sign in"
    check_page(browser)


def test_others_are_agreed_to_with_keys_alone(page: Page, browser: Browser) -> None:
    page.let_join()
    place = sign_in(browser, page.address, "Anna")
    browser.go(f"{place}/studies")
    browser.tab_to("roster 2 waits for this hospital")
    browser.press("Enter", leads_on=True)
    assert browser.run("location.href") == place + PATH
    check_page(browser)
    browser.tab_to("I have read who joins")
    browser.press(" ")
    browser.tab_to("Agree to these hospitals")
    browser.press("Enter", leads_on=True)
    said = browser.run("document.querySelector('[role=status]').innerText")
    assert said.startswith("This hospital agreed to roster 2.")
    check_page(browser)
    [agreed] = page.events(RosterAgreed)
    assert agreed.by == "Anna (steward)"


def test_no_script_of_a_title_runs(make: Make, browser: Browser) -> None:
    evil = "<img src=x onerror=document.title=1><script>document.title=1</script>"
    one = make(text=TEXT.replace("Death in the intensive-care unit", evil))
    place = sign_in(browser, one.address, "Anna")
    browser.go(f"{place}{one.path}")
    assert browser.run("document.title").startswith("<img src=x")
    assert browser.run("document.images.length + document.scripts.length") == 0


def test_the_operators_page_is_used_with_keys_alone(browser: Browser, tmp_path: Path) -> None:
    folder = make_coordinator(tmp_path / "coordinator", TEXT)
    users = Users(folder.path, COORDINATOR_ROLES, command="x", cost=QUICK)
    users.set("Olga", "operator", PASSWORD)
    with served(coordinator_application(folder)) as address:
        sign_in(browser, address, "Olga")
        check_page(browser)
        browser.tab_to("Actions")
        browser.press("Enter", leads_on=True)
        check_page(browser)
        browser.tab_to("What is to happen to sepsis")
        browser.type_letter("p")
        browser.press("Tab")
        assert browser.focused().startswith("I am sure")
        browser.press(" ")
        browser.press("Tab")
        browser.press("Enter", leads_on=True)
        said = browser.run("document.querySelector('[role=status]').innerText")
    assert re.search("Study sepsis will pause", said)
