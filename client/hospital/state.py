"""What a site keeps on disk and in its vault, opened."""

from dataclasses import dataclass

from consilium.client.hospital.personal_store import PersonalStore
from consilium.client.hospital.round_audit import RoundAudit
from consilium.client.ledger.store import Ledger
from consilium.client.secure_sum.journal import RoundJournal
from consilium.shared.crypto.keys import IdentityKey


@dataclass(frozen=True, kw_only=True)
class SiteState:
    """What a site keeps on disk and in its vault, opened.

    ``split_key`` parts patients into shards, the same way in every study; see
    :mod:`consilium.client.records.cohort`. ``personal`` holds this site's own parts of models. A
    simulated site keeps no ``audit``.
    """

    identity: IdentityKey
    ledger: Ledger
    journal: RoundJournal
    split_key: bytes
    personal: PersonalStore
    audit: RoundAudit | None = None
