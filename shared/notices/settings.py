"""``[notices]`` in ``site.toml`` or ``coordinator.toml``: whom to tell what, and by which way.

::

    [notices]
    kinds = ["study-offered", "round-void"]   # without it: all kinds
    quiet_minutes = 60       # of one kind about one study or site, no sooner after the last
    missing_minutes = 30     # without a sign of the other side
    certificate_days = 30    # before a certificate ends
    disk_free_mib = 1024     # less is nearly full
    look_every_s = 60        # how often it is looked, and the first pause after a failure
    authority = "hospital-ca.pem"    # more authorities that mail servers and webhooks may show

    [notices.mail]
    host = "mail.hospital.example"
    port = 587
    tls = "starttls"         # or "tls"; "none" only on this machine itself
    account = "mail-account" # a file of mode 0600 with NAME:PASSWORD
    from = "Consilium <consilium@hospital.example>"
    to = ["it@hospital.example"]

    [notices.webhook]
    urls = ["https://alerts.hospital.example/consilium"]
    secret = "webhook-secret"    # a file of mode 0600 with one line of 16 characters or more

Files are relative to this side's folder. They are read when something is sent.
"""

from email.headerregistry import Address
from email.utils import getaddresses
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from consilium.shared.errors import ConsiliumError
from consilium.shared.files.strict_toml import StrictTable, validate
from consilium.shared.notices.kinds import KINDS, Kind

LEAST_SECRET = 16
LOOPBACK = ("127.0.0.1", "::1", "localhost")
_File = Annotated[str, Field(min_length=1, max_length=500)]


class MailSettings(StrictTable):
    """The mail server that takes notices, and who sends and gets them."""

    host: str = Field(pattern=r"^[A-Za-z0-9.:-]{1,253}$")
    port: Annotated[int, Field(ge=1, le=65535)] = 587
    tls: Literal["starttls", "tls", "none"] = "starttls"
    account: _File | None = None
    sender: str = Field(alias="from", min_length=3, max_length=320)
    to: list[str] = Field(min_length=1, max_length=20)

    @field_validator("sender")
    @classmethod
    def _is_address(cls, text: str) -> str:
        mail_address(text)
        return text

    @field_validator("to")
    @classmethod
    def _are_addresses(cls, texts: list[str]) -> list[str]:
        plain = [mail_address(text).addr_spec for text in texts]
        if len(set(plain)) < len(plain):
            raise ValueError("names an address twice; name it once")
        return texts

    @model_validator(mode="after")
    def _is_encrypted(self) -> Self:
        if self.tls == "none" and self.host not in LOOPBACK:
            raise ValueError(
                f'tls = "none" sends in the clear, which only a server on this machine may get '
                f'(127.0.0.1), not {self.host}; choose "starttls" or "tls"'
            )
        return self


class WebhookSettings(StrictTable):
    """Where notices are posted, and the secret by which a receiver knows them."""

    urls: list[str] = Field(min_length=1, max_length=20)
    secret: _File

    @field_validator("urls")
    @classmethod
    def _are_urls(cls, urls: list[str]) -> list[str]:
        for url in urls:
            _check_url(url)
        if len(set(urls)) < len(urls):
            raise ValueError("names an address twice; name it once")
        return urls


class NoticeSettings(StrictTable):
    """Whom to tell what; see the module's text."""

    kinds: list[Kind] = Field(default_factory=lambda: list(KINDS))
    quiet_minutes: Annotated[float, Field(ge=0, le=10_080)] = 60.0
    missing_minutes: Annotated[float, Field(ge=0.05, le=10_080)] = 30.0
    certificate_days: Annotated[float, Field(ge=0, le=3650)] = 30.0
    disk_free_mib: Annotated[int, Field(ge=0, le=1 << 30)] = 1024
    look_every_s: Annotated[float, Field(ge=0.2, le=3600)] = 60.0
    authority: _File | None = None
    mail: MailSettings | None = None
    webhook: WebhookSettings | None = None

    @model_validator(mode="after")
    def _tells_somebody(self) -> Self:
        if self.mail is None and self.webhook is None:
            raise ValueError("neither [notices.mail] nor [notices.webhook] is there; add one")
        return self


def read_notice_settings(
    content: dict[str, object], *, where: str, raises: type[ConsiliumError]
) -> NoticeSettings:
    """Return what a table ``[notices]`` says, checked.

    Raises:
        ConsiliumError: of the kind ``raises``; the sentence names the key.
    """
    return validate(content, NoticeSettings, what="[notices] in", where=where, raises=raises)


def mail_address(text: str) -> Address:
    """Return an address such as ``Name <local@domain>``; a domain in any script, in its ASCII form.

    Raises:
        ValueError: it is none that every mail server can take.
    """
    wrong = ValueError(f"{text!r} is no mail address; write NAME@DOMAIN, or 'Name <NAME@DOMAIN>'")
    if not text.isprintable():
        raise wrong
    found = getaddresses([text])
    if len(found) != 1:
        raise wrong
    (name, plain), written = found[0], text.strip()
    if written != plain and not written.endswith(f"<{plain}>"):
        raise wrong
    local, _, domain = plain.rpartition("@")
    try:
        ascii_domain = domain.encode("idna").decode("ascii")
        address = Address(display_name=name, username=local, domain=ascii_domain)
    except (UnicodeError, ValueError, IndexError):
        raise wrong from None
    if not local or not domain or any(sign.isspace() for sign in plain):
        raise wrong
    if not local.isascii():
        raise ValueError(
            f"{text!r} has other signs than a-z before the @, which not every mail server takes; "
            "name an address without them"
        )
    return address


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        host = ""
    if not host or not url.isascii() or not url.isprintable() or " " in url or len(url) > 2000:
        raise ValueError(f"{url[:80]!r} is no address; write https://NAME/PATH")
    if parts.username is not None or parts.password is not None or parts.fragment:
        raise ValueError(
            f"the address at {host} has an account or a fragment in it; the signature says who "
            "sends, so leave it out"
        )
    if parts.scheme != "https" and not (parts.scheme == "http" and host in LOOPBACK):
        raise ValueError(
            f"{parts.scheme}://{host} is not encrypted; write https://, or http:// for 127.0.0.1"
        )
