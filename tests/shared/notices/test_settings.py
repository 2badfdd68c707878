"""What [notices] may say, and the sentence for what it may not."""

import pytest

from consilium.client.hospital.settings import SiteSettings
from consilium.shared.errors import SettingsError
from consilium.shared.notices.kinds import KINDS
from consilium.shared.notices.settings import read_notice_settings
from tests.shared.notices.made_up import mail, webhook

GOOD = {"webhook": webhook("https://alerts.example/x")}
WRONG = [
    ({}, "neither"),
    (GOOD | {"kind": []}, "did you mean 'kinds'"),
    (GOOD | {"kinds": ["round-lost"]}, "must be one of 'study-offered'"),
    (GOOD | {"quiet_minutes": -1}, "must be at least 0"),
    (GOOD | {"look_every_s": 0}, "must be at least 0.2"),
    ({"webhook": webhook("http://alerts.example/")}, "http://alerts.example is not encrypted"),
    ({"webhook": webhook("ftp://127.0.0.1/")}, "is not encrypted"),
    ({"webhook": webhook("file:///etc/passwd")}, "is no address"),
    ({"webhook": webhook("https://user:secret@alerts.example/")}, "has an account"),
    ({"webhook": webhook("https://ä.example/")}, "is no address"),
    ({"webhook": webhook("https://a.example/\r\nX: y")}, "is no address"),
    ({"webhook": webhook("https://a.example:99999/")}, "is no address"),
    ({"webhook": webhook("https://a.example/", "https://a.example/")}, "names an address twice"),
    ({"webhook": {"urls": ["https://a.example/"]}}, "secret is missing"),
    ({"mail": mail(25, host="mail.example")}, 'tls = "none" sends in the clear'),
    ({"mail": mail(25, to=[])}, "to"),
    ({"mail": mail(25, to=["nobody"])}, "'nobody' is no mail address"),
    ({"mail": mail(25, to=["a@b.example\r\nBcc: x@y.example"])}, "is no mail address"),
    ({"mail": mail(25, to=["a@b.example, c@d.example"])}, "is no mail address"),
    ({"mail": mail(25, to=["zoë@b.example"])}, "before the @"),
    ({"mail": mail(25, to=["a@b.example", "A <a@b.example>"])}, "names an address twice"),
    ({"mail": mail(25) | {"from": "xx@"}}, "is no mail address"),
    ({"mail": mail(99999)}, "must be at most 65535"),
]


@pytest.mark.parametrize(("content", "sentence"), WRONG)
def test_what_is_wrong_is_one_sentence_that_names_it(content, sentence):
    with pytest.raises(SettingsError) as wrong:
        read_notice_settings(content, where="site.toml", raises=SettingsError)
    assert sentence in str(wrong.value)
    assert "\n" not in str(wrong.value)
    assert "secret@" not in str(wrong.value)


def test_without_a_list_all_kinds_are_told_and_http_is_for_this_machine():
    urls = ("http://127.0.0.1:8080/x", "http://localhost/y", "http://[::1]:1/", "https://a.example")
    read = read_notice_settings({"webhook": webhook(*urls)}, where="x", raises=SettingsError)
    assert tuple(read.kinds) == KINDS
    assert read.mail is None


def test_site_toml_takes_the_table_and_says_what_is_wrong_with_it(tmp_path):
    file = tmp_path / "site.toml"
    file.write_text(
        'site = "north"\n[notices.webhook]\nurls = ["http://x.example"]\nsecret = "s"\n'
    )
    with pytest.raises(SettingsError, match=r"notices\.webhook\.urls: http://x\.example is not"):
        SiteSettings.read(tmp_path)
    file.write_text('site = "north"\n')
    assert SiteSettings.read(tmp_path).notices is None
