"""The example of [notices] in docs/operations.md is read, and its receiver takes what is sent."""

import re
import tomllib
from pathlib import Path

import pytest

from consilium.client.hospital.settings import SiteSettings
from consilium.shared.errors import SettingsError
from consilium.shared.notices.kinds import KINDS
from consilium.shared.notices.outbox import MOST_ATTEMPTS
from consilium.shared.notices.settings import read_notice_settings
from consilium.shared.notices.webhook import SIGNATURE_HEADER, TIME_HEADER, sign, to_body
from tests.shared.notices.made_up import SITE, one_notice, void

PAGE = Path(__file__).resolve().parents[2] / "docs" / "operations.md"


def part() -> str:
    return re.search(r"^## Be told$(.*?)^## ", PAGE.read_text(), re.MULTILINE | re.DOTALL)[1]


def block(language: str) -> str:
    return re.search(rf"```{language}\n(.*?)```", part(), re.DOTALL)[1]


def test_the_example_is_what_either_side_takes_and_says_the_defaults(tmp_path):
    (tmp_path / "site.toml").write_text(f'site = "north"\n{block("toml")}', encoding="utf-8")
    read = SiteSettings.read(tmp_path).notices
    again = read_notice_settings(
        tomllib.loads(block("toml"))["notices"], where="coordinator.toml", raises=SettingsError
    )
    assert read == again
    assert read.mail is not None
    smallest = read_notice_settings(
        {"webhook": read.webhook.model_dump()}, where="x", raises=SettingsError
    )
    for key in ("quiet_minutes", "missing_minutes", "certificate_days", "look_every_s"):
        assert getattr(read, key) == getattr(smallest, key)
    assert read.disk_free_mib == smallest.disk_free_mib


def test_the_table_has_every_kind_and_the_text_the_number_of_attempts():
    assert sorted(re.findall(r"^\| `([a-z-]+)` \|", part(), re.MULTILINE)) == sorted(KINDS)
    assert f"{MOST_ATTEMPTS} times in all" in part()


def test_the_receiver_of_the_page_takes_what_is_sent_and_nothing_else():
    names: dict = {}
    exec(block("python"), names)  # noqa: S102 - the page's own example
    body = to_body(one_notice(void(12), sender=SITE))
    now = int(names["time"].time())
    for stamp, secret, good in (
        (now, "s" * 16, True),
        (now - 400, "s" * 16, False),
        (now, "t", False),
    ):
        headers = {TIME_HEADER: str(stamp), SIGNATURE_HEADER: sign(secret, stamp, body)}
        assert names["is_genuine"]("s" * 16, headers, body) is good
    with pytest.raises(KeyError):
        names["is_genuine"]("s" * 16, {}, body)


def test_the_mail_of_the_page_is_one_that_is_sent():
    notice = one_notice(void(12), sender=SITE)
    shown = [line.strip() for line in part().splitlines()]
    assert f"Subject: {notice.subject}" in shown
    assert set(notice.text.splitlines()) <= set(shown)
