"""What a site keeps on disk and in its vault, opened."""

from dataclasses import dataclass

from client.journal import RoundJournal
from client.ledger import Ledger
from client.personal_store import PersonalStore
from client.round_audit import RoundAudit
from shared.keys import IdentityKey


@dataclass(frozen=True, kw_only=True)
class SiteState:
    """What a site keeps on disk and in its vault, opened.

    ``split_key`` parts patients into shards, the same way in every study; see
    :mod:`client.cohort`. ``personal`` holds this site's own parts of models. A simulated site keeps
    no ``audit``.
    """

    identity: IdentityKey
    ledger: Ledger
    journal: RoundJournal
    split_key: bytes
    personal: PersonalStore
    audit: RoundAudit | None = None
