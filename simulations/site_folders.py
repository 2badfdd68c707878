"""A folder for each simulated site, with the same files a hospital keeps: keys, ledger, journal.

They outlive the process, so that a run that was cut off goes on with the same identities, and
nothing it has spent or masked is forgotten.
"""

import secrets
from collections.abc import Iterable
from pathlib import Path

from client.journal import RoundJournal
from client.ledger import Ledger
from client.policy import Policy
from client.session import SiteState
from shared.atomic_file import write_atomically
from shared.keys import IdentityKey, Roster

PRIVATE_FOLDER = 0o700
PRIVATE_FILE = 0o600


def open_site(folder: Path, policy: Policy) -> SiteState:
    """Open a site's folder, making what is not there yet."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(PRIVATE_FOLDER)
    identity, split_key = folder / "identity.pem", folder / "split.key"
    if not identity.exists():
        write_atomically(identity, IdentityKey.generate().to_pem(), mode=PRIVATE_FILE)
    if not split_key.exists():
        write_atomically(split_key, secrets.token_bytes(32), mode=PRIVATE_FILE)
    return SiteState(
        identity=IdentityKey.from_pem(identity.read_bytes()),
        ledger=Ledger(
            folder / "ledger.sqlite", lifetime_epsilon=policy.lifetime_epsilon, delta=policy.delta
        ),
        journal=RoundJournal(folder / "journal.sqlite"),
        split_key=split_key.read_bytes(),
    )


def roster_of(states: Iterable[tuple[str, SiteState]]) -> Roster:
    """Return the roster that a person would have collected from the sites and pinned."""
    return Roster(tuple(sorted((site, state.identity.public) for site, state in states)))
