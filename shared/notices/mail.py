"""One notice as a plain text mail, handed to a mail server (SMTP) for one recipient.

TLS verifies the server's name and chain; a server that does not offer the STARTTLS asked for gets
nothing. What a server says is one line of text, shown to this side's own people and nobody else.
"""

import smtplib
import ssl
from contextlib import suppress
from datetime import UTC, datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP as SMTP_POLICY
from email.utils import format_datetime
from pathlib import Path

from consilium.shared.errors import UnreachableError
from consilium.shared.files.private_text import read_pair
from consilium.shared.notices.outbox import Notice
from consilium.shared.notices.settings import MailSettings, mail_address
from consilium.shared.service.terminal import one_line

TIMEOUT_S = 20.0
LONGEST_SAID = 200
# The name that a server is greeted by. Not this machine's, which would stand in every mail's trace.
GREETING = "[127.0.0.1]"


def to_mail(notice: Notice, *, sender: Address, recipient: Address) -> EmailMessage:
    """Return the mail: plain text, with the notice's identifier as its Message-ID.

    Guarantee: a header holds one line, whatever the notice holds.
    """
    mail = EmailMessage(policy=SMTP_POLICY)
    mail["From"], mail["To"] = sender, recipient
    mail["Subject"] = one_line(notice.subject)
    mail["Date"] = format_datetime(datetime.fromtimestamp(notice.formed, UTC))
    mail["Message-ID"] = f"<{notice.id}@{sender.domain}>"
    mail["Auto-Submitted"] = "auto-generated"  # RFC 3834: no absence is answered to it
    mail.set_content(f"{notice.text}\n\nNotice {notice.id}, {notice.kind}.\n", charset="utf-8")
    return mail


def send_mail(
    notice: Notice, recipient: str, settings: MailSettings, folder: Path, context: ssl.SSLContext
) -> str:
    """Hand a notice to the mail server for one recipient; return what the server said.

    Args:
        notice: what to send.
        recipient: one of the settings' ``to``.
        settings: the server.
        folder: where the file with the account lies.
        context: verifies the server.

    Raises:
        SettingsError: the file with the account cannot be used.
        UnreachableError: the server cannot be reached, or refused; the sentence says what it said.
    """
    account = (
        None
        if settings.account is None
        else read_pair(folder / settings.account, named="[notices.mail] account")
    )
    sender, to = mail_address(settings.sender), mail_address(recipient)
    content = to_mail(notice, sender=sender, recipient=to).as_bytes()
    try:
        server = _connected(settings, context)
        try:
            server.ehlo_or_helo_if_needed()
            if account is not None:
                server.login(*account)
            _accepted(*server.mail(sender.addr_spec))
            _accepted(*server.rcpt(to.addr_spec))
            said = _accepted(*server.data(content))
            with suppress(smtplib.SMTPException):  # it was taken, whatever follows
                server.quit()
        finally:
            server.close()
    except (smtplib.SMTPException, OSError, UnicodeError) as error:
        raise UnreachableError(_reason(error)) from None
    return said


def _connected(settings: MailSettings, context: ssl.SSLContext) -> smtplib.SMTP:
    """Return the connection to the server, encrypted as the settings say."""
    host, port = settings.host, settings.port
    if settings.tls == "tls":
        return smtplib.SMTP_SSL(host, port, GREETING, timeout=TIMEOUT_S, context=context)
    server = smtplib.SMTP(host, port, GREETING, timeout=TIMEOUT_S)
    try:
        if settings.tls == "starttls":
            server.starttls(context=context)
    except BaseException:
        server.close()
        raise
    return server


def _accepted(code: int, said: bytes) -> str:
    if not 200 <= code < 300:
        raise smtplib.SMTPResponseException(code, said)
    return _shown(code, said)


def _shown(code: int, said: bytes | str) -> str:
    text = said.decode("utf-8", "replace") if isinstance(said, bytes) else said
    return one_line(f"{code} {text}")[:LONGEST_SAID]


def _reason(error: Exception) -> str:
    """Return why a server did not take a mail, in one line."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return (
            f"the mail server's certificate does not verify ({one_line(error.verify_message)}); "
            "name its authority in [notices] authority"
        )
    if isinstance(error, smtplib.SMTPResponseException):
        return f"the mail server refused: {_shown(error.smtp_code, error.smtp_error)}"
    if isinstance(error, smtplib.SMTPNotSupportedError):
        return "the mail server does not offer STARTTLS, or no way to log in that is known here"
    if isinstance(error, TimeoutError):
        return "the mail server did not answer in time"
    said = getattr(error, "strerror", None) or type(error).__name__
    return f"the mail server cannot be reached: {one_line(str(said))[:LONGEST_SAID]}"
