"""A site's keys, ledger, journal and audit log, opened."""

from dataclasses import dataclass

from consilium.client.hospital.budget_certificates import BudgetCertificates
from consilium.client.hospital.personal_store import PersonalStore
from consilium.client.hospital.round_audit import RoundAudit
from consilium.client.ledger.store import Ledger
from consilium.client.secure_sum.journal import RoundJournal
from consilium.shared.crypto.keys import IdentityKey


@dataclass(frozen=True, kw_only=True)
class SiteState:
    """A site's keys, ledger, journal and audit log, opened.

    ``split_key`` assigns patients to shards, in the same way for every study; see
    :mod:`consilium.client.records.cohort`. ``personal`` holds the parts of models that stay at this
    site. A simulated site has no ``audit``, and one without a recovery code no ``certificates``.
    """

    identity: IdentityKey
    ledger: Ledger
    journal: RoundJournal
    split_key: bytes
    personal: PersonalStore
    audit: RoundAudit | None = None
    certificates: BudgetCertificates | None = None
