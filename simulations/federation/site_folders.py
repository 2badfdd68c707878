"""What a simulated site keeps: with the protocol a folder, with the same files as a hospital's.

They outlive the process, so an interrupted run goes on with the same identities, and remembers all
the privacy that it has spent and every round that it has masked. A run that is summed in the clear
keeps its sites in memory, and leaves their ledgers behind when it ends.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Self

from consilium.client.hospital.personal_store import PersonalStore
from consilium.client.hospital.policy import Policy
from consilium.client.hospital.state import SiteState
from consilium.client.ledger.store import Ledger
from consilium.client.secure_sum.journal import RoundJournal
from consilium.shared.crypto.declaration import Declaration
from consilium.shared.crypto.keys import IdentityKey, Roster
from consilium.shared.files.atomic_file import write_atomically
from consilium.shared.files.permissions import PRIVATE_FILE, PRIVATE_FOLDER

LEDGER = "ledger.sqlite"
MOST_SIGNATURES = 1 << 14  # kept in memory; a round of a few hundred sites has fewer


@dataclass(frozen=True)
class OneProcessRoster(Roster):
    """The roster of sites that share one process: a valid signature is verified once for all.

    Real hospitals each verify every signature, so a simulated round takes less time than all of
    theirs together. An invalid signature is verified, and refused, by each site.
    """

    @cached_property
    def _once(self) -> Callable[[str, bytes, bytes, str], None]:
        return lru_cache(maxsize=MOST_SIGNATURES)(super().verify)

    def verify(self, site: str, statement: bytes, signature: bytes, what: str) -> None:
        """See :meth:`consilium.shared.crypto.keys.Roster.verify`."""
        self._once(site, statement, signature, what)

    def restricted_to(self, sites: Iterable[str]) -> Roster:
        """As :meth:`.Roster.restricted_to`; if all sites are kept, return this same roster."""
        kept = frozenset(sites)
        if kept.issuperset(self.names):
            return self
        fewer = super().restricted_to(kept)
        return OneProcessRoster(fewer.members, fewer.declared)

    def with_declared(self, declared: Mapping[str, Declaration], study_digest: bytes) -> Self:
        """As :meth:`.Roster.with_declared`; with the sizes that it has, this same roster."""
        if dict(zip(self.names, self.declared, strict=False)) == declared:
            return self
        return super().with_declared(declared, study_digest)


def open_site(folder: Path, policy: Policy, *, split_key: bytes) -> SiteState:
    """Open a simulated site's folder, and make what is missing.

    Args:
        folder: this site's own.
        policy: gives the ledger's lifetime budget.
        split_key: key of the hash that splits patients into shards; derived from the study's seed,
            so that a simulation can be repeated. (A hospital draws its own once and keeps it.)
    """
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(PRIVATE_FOLDER)
    identity = folder / "identity.pem"
    if not identity.exists():
        write_atomically(identity, IdentityKey.generate().to_pem(), mode=PRIVATE_FILE)
    return SiteState(
        identity=IdentityKey.from_pem(identity.read_bytes()),
        ledger=Ledger(
            folder / LEDGER, lifetime_epsilon=policy.lifetime_epsilon, delta=policy.delta
        ),
        journal=RoundJournal(folder / "journal.sqlite"),
        split_key=split_key,
        personal=PersonalStore(folder / "personal"),
    )


@dataclass(frozen=True, kw_only=True)
class ClearState:
    """What a site keeps in a run that is summed in the clear; as :class:`.SiteState`."""

    identity: IdentityKey
    ledger: Ledger
    split_key: bytes
    personal: PersonalStore


def open_in_memory(
    folder: Path, policy: Policy, *, split_key: bytes, identity_seed: bytes
) -> ClearState:
    """Return a site without files, but those of the part of the model that stays there.

    Args:
        folder: this site's own; made when something is put there.
        policy: gives the ledger's lifetime budget.
        split_key: as for :func:`open_site`.
        identity_seed: 32 bytes that identify the site in this study; they hide nothing.
    """
    return ClearState(
        identity=IdentityKey.from_seed(identity_seed),
        ledger=Ledger(None, lifetime_epsilon=policy.lifetime_epsilon, delta=policy.delta),
        split_key=split_key,
        personal=PersonalStore(folder / "personal"),
    )


def leave_ledger(folder: Path, ledger: Ledger) -> None:
    """Write a ledger that was kept in memory into its site's folder, if anything was charged."""
    if ledger.entries():
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(PRIVATE_FOLDER)
        ledger.write_to(folder / LEDGER)


def roster_of(
    states: Mapping[str, SiteState | ClearState], sizes: Mapping[str, int], study_digest: bytes
) -> Roster:
    """Return the roster of these sites, each with the size (patients) that it declares."""
    sites = sorted(states)
    return OneProcessRoster(
        tuple((site, states[site].identity.public) for site in sites),
        tuple(
            Declaration.signed(
                sizes[site],
                study_digest=study_digest,
                site=site,
                sign=states[site].identity.sign,
            )
            for site in sites
        ),
    )
