"""An invitation: what an operator hands to a hospital so that its site can enrol, once.

The token carries the coordinator's address, its certificate authority's certificate and its
identity, so that the site trusts nothing else: no public authority, no name server, no proxy that
opens TLS. Its secret is worth one enrolment until it expires.
"""

import base64
import binascii
from dataclasses import dataclass
from typing import Annotated, ClassVar

from consilium.shared.crypto.keys import KEY_BYTES
from consilium.shared.errors import MessageError, SettingsError
from consilium.shared.wire.encoding import SITE, Message, Octets, Text, Whole

PREFIX = "consilium-1-"
LARGEST_TOKEN = 8192
SECRET_BYTES = 32


@dataclass(frozen=True, kw_only=True, repr=False)
class Invitation(Message):
    """One site's way in.

    Attributes:
        site: the name it will have in studies.
        host, port: where the coordinator listens.
        secret: shown once, to the coordinator (32 bytes).
        coordinator: the coordinator's Ed25519 identity (32 bytes).
        authority: the only certificate authority the site will accept, DER.
        expires: seconds since 1970 by the coordinator's clock.
    """

    kind: ClassVar[str] = "invitation"
    max_bytes: ClassVar[int] = LARGEST_TOKEN
    site: Annotated[str, SITE]
    host: Annotated[str, Text(253)]
    port: Annotated[int, Whole(1, 65535)]
    secret: Annotated[bytes, Octets(SECRET_BYTES, SECRET_BYTES)]
    coordinator: Annotated[bytes, Octets(KEY_BYTES, KEY_BYTES)]
    authority: Annotated[bytes, Octets(1, 4096)]
    expires: Annotated[int, Whole(0, 2**40)]

    def to_token(self) -> str:
        """The invitation as one word that survives copying and pasting."""
        return PREFIX + base64.urlsafe_b64encode(self.to_bytes()).decode().rstrip("=")

    @classmethod
    def from_token(cls, token: str) -> "Invitation":
        """Read a token; blanks and line breaks that mail programs add are ignored.

        Raises:
            SettingsError: not a whole token of this version.
        """
        word = "".join(token.split())
        problem = SettingsError(
            "the invitation token is not whole or not of this version; copy all of it, from "
            f"{PREFIX!r} to its end, or ask the coordinator for a new one"
        )
        if not word.startswith(PREFIX) or len(word) > LARGEST_TOKEN:
            raise problem
        encoded = word.removeprefix(PREFIX)
        try:
            padded = encoded + "=" * (-len(encoded) % 4)
            return cls.from_bytes(base64.b64decode(padded, altchars=b"-_", validate=True))
        except (binascii.Error, ValueError, MessageError):
            raise problem from None
