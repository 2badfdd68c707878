"""Where a round's random numbers come from.

Guarantee: in a study with privacy every keystream is fresh, secret and cryptographic. Only a study
without privacy derives them from its seed, so that its runs can be repeated bit for bit.
"""

import secrets
from dataclasses import dataclass

from consilium.shared.crypto.keystream import Keystream
from consilium.shared.crypto.transcript import digest
from consilium.shared.study.definition import Study


@dataclass(frozen=True, kw_only=True)
class RoundRandomness:
    """The random numbers of one site in one round."""

    study: Study
    site: str
    round_number: int

    def stream(self, use: str) -> Keystream:
        """Return a keystream; without privacy, the same use gives the same keystream."""
        if self.study.privacy.mode != "none":
            return Keystream(secrets.token_bytes(32))
        return Keystream(digest("repeatable", self.study.seed, self.site, self.round_number, use))
