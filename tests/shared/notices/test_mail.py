"""Mails as a mail server on loopback gets them, over TLS too; and what is said when it fails."""

import pytest

from consilium.shared.errors import SettingsError, UnreachableError
from consilium.shared.notices.courier import Addresses
from consilium.shared.notices.kinds import KINDS, NoticeEvent, subject_and_text
from tests.notice_servers import certificates, mail_server, server_context
from tests.shared.notices.made_up import (
    COORDINATOR,
    SITE,
    STUDY,
    mail,
    one_notice,
    settings,
    void,
)


@pytest.fixture(scope="module")
def tls(tmp_path_factory):
    return certificates(tmp_path_factory.mktemp("tls") / "files", "127.0.0.1", "localhost")


def send(folder, chosen, notice=None):
    addresses = Addresses(chosen, folder)
    return addresses.send(notice or one_notice(void(12)), addresses.names[0], 1000.0)


def test_a_mail_is_plain_text_with_a_short_subject_and_a_stable_identifier(tmp_path):
    with mail_server() as inbox:
        notice = one_notice(void(12))
        chosen = settings(mail=mail(inbox.port))
        assert send(tmp_path, chosen, notice) == "250 2.0.0 queued as 4711"
        send(tmp_path, chosen, notice)
    first, second = inbox.mails()
    assert first["Message-ID"] == second["Message-ID"] == f"<{notice.id}@klinik.example>"
    assert first["Subject"] == "Consilium, coordinator: study tiny: round 12 is void"
    assert first["From"] == "Klinik Süd <consilium@klinik.example>"
    assert (first["To"], first["Auto-Submitted"]) == ("it@klinik.example", "auto-generated")
    assert first.get_content_type() == "text/plain"
    assert first.get_content().splitlines() == [
        "Study tiny, digest 0123456789abcdef.",
        "The model is as it was before, and the study goes on.",
        "consilium-coordinator watch says why.",
        "",
        f"Notice {notice.id}, round-void.",
    ]
    assert inbox.taken[0][0]["RCPT"] == "TO:<it@klinik.example>"
    assert inbox.greetings == ["[127.0.0.1]"] * 2  # not this machine's name


@pytest.mark.parametrize("way", ["starttls", "tls"])
def test_the_account_and_the_mail_go_over_tls_alone(way, tls, tmp_path):
    (tmp_path / "mail-account").write_text("north:se:cret\n")
    (tmp_path / "mail-account").chmod(0o600)
    (tmp_path / "ca.pem").write_bytes(tls.authority.read_bytes())
    plain = "AG5vcnRoAHNlOmNyZXQ="  # PLAIN (RFC 4616) of that account
    context = server_context(tls)
    with mail_server(context, wrapped=way == "tls", account=plain) as inbox:
        more = mail(inbox.port, tls=way, account="mail-account", host="localhost")
        send(tmp_path, settings(mail=more, authority="ca.pem"))
        assert inbox.taken[0][0] | {"RCPT": "", "MAIL": ""} == {
            "account": plain, "tls": "True", "RCPT": "", "MAIL": "",
        }  # fmt: skip
        with pytest.raises(UnreachableError, match="certificate does not verify"):
            send(tmp_path, settings(mail=more))
        (tmp_path / "mail-account").write_text("north:wrong\n")
        with pytest.raises(UnreachableError, match="the mail server refused: 535 who are you"):
            send(tmp_path, settings(mail=more, authority="ca.pem"))
    assert len(inbox.taken) == 1


def test_a_certificate_for_another_name_or_that_has_ended_is_not_taken(tmp_path):
    for name, files in (
        ("other", certificates(tmp_path / "other", "mail.example.org")),
        ("ended", certificates(tmp_path / "ended", "127.0.0.1", ended=True)),
    ):
        (tmp_path / f"{name}.pem").write_bytes(files.authority.read_bytes())
        with mail_server(server_context(files), wrapped=True) as inbox:
            chosen = settings(mail=mail(inbox.port, tls="tls"), authority=f"{name}.pem")
            with pytest.raises(UnreachableError, match="certificate does not verify"):
                send(tmp_path, chosen)
        assert not inbox.taken


def test_a_server_without_starttls_gets_nothing(tmp_path):
    with mail_server() as inbox, pytest.raises(UnreachableError, match="does not offer STARTTLS"):
        send(tmp_path, settings(mail=mail(inbox.port, tls="starttls")))
    assert not inbox.taken


def test_what_a_server_says_is_one_line_without_control_characters(tmp_path):
    with mail_server() as inbox:
        inbox.fail = [451, None]
        chosen = settings(mail=mail(inbox.port))
        with pytest.raises(UnreachableError) as refused:
            send(tmp_path, chosen)
        assert str(refused.value) == "the mail server refused: 451 not now, come back\\x1b[2J"
        with pytest.raises(UnreachableError, match="the mail server"):
            send(tmp_path, chosen)
    with pytest.raises(UnreachableError, match="cannot be reached: Connection refused"):
        send(tmp_path, chosen)


def test_a_file_of_accounts_that_others_can_read_is_a_sentence(tmp_path):
    chosen = settings(mail=mail(1, account="mail-account"))
    with pytest.raises(SettingsError, match=r"cannot be read .*\[notices.mail\] account"):
        send(tmp_path, chosen)
    (tmp_path / "mail-account").write_text("a:b")
    (tmp_path / "mail-account").chmod(0o644)
    with pytest.raises(SettingsError, match="may be read by other accounts"):
        send(tmp_path, chosen)


def test_a_domain_in_another_script_is_written_as_every_server_reads_it(tmp_path):
    with mail_server() as inbox:
        send(tmp_path, settings(mail=mail(inbox.port, to=["Zoë <it@klinikum-süd.example>"])))
    (envelope, content), (read,) = inbox.taken[0], inbox.mails()
    assert envelope["RCPT"] == "TO:<it@xn--klinikum-sd-2hb.example>"
    assert read["To"].addresses[0].display_name == "Zoë"
    assert content.isascii()


HOSTILE = ("a\r\nBcc: x@y.example", "a\nb", "ü", "../x", "<b>", "a b", "x" * 65, "\u2028")


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_that_is_none_makes_no_notice(name):
    for fields in ({"study": name}, {"sites": (name,)}, {"study_digest": name}, {"day": name},
                   {"case": name}, {"round": name}):  # fmt: skip
        with pytest.raises(ValueError, match="holds what is not told"):
            NoticeEvent(kind="round-void", once="", **fields)


def test_no_header_has_a_line_break_even_if_a_subject_had_one(tmp_path):
    notice = one_notice(void(1), sender=SITE)
    hostile = notice.__class__(**vars(notice) | {"subject": "a\r\nBcc: thief@example.org\r\n\r\nb"})
    with mail_server() as inbox:
        send(tmp_path, settings(mail=mail(inbox.port)), hostile)
    (read,) = inbox.mails()
    assert read["Bcc"] is None
    assert read["Subject"] == "a\\r\\nBcc: thief@example.org\\r\\n\\r\\nb"


def test_every_kind_has_a_short_subject_on_both_sides():
    for kind in KINDS:
        for sender in (SITE, COORDINATOR):
            event = NoticeEvent(
                kind=kind, once="", sites=("east",), round=3, day="2027-01-02", **STUDY
            )
            subject, text = subject_and_text(sender, [event])
            assert len(subject) < 100
            assert subject.startswith(f"Consilium, {sender.shown}: ")
            assert text.isascii()
            assert max(map(len, text.splitlines())) < 100
