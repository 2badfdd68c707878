"""Checks the vouchers in the folder against the audit log, which names every change to them."""

from collections.abc import Mapping
from pathlib import Path

from consilium.client.hospital.voucher_store import VoucherStore
from consilium.shared.audit.entry import AuditEntry
from consilium.shared.audit.events import Vouched, VouchersTaken
from consilium.shared.audit.reading import read_lines
from consilium.shared.errors import AuditError


def voucher_disagreements(store: VoucherStore, log: Path) -> list[str]:
    """Return one sentence for each hospital of which folder and log say different things.

    So a folder that was put back to an older copy does not vouch again for whom it no longer did.

    Raises:
        AuditError: the log cannot be read.
        SettingsError: the vouchers cannot be.
    """
    own: dict[str, bytes] = {}
    taken: dict[str, int] = {}
    for line in read_lines(log):
        try:
            event = AuditEntry.from_line(line).event
        except AuditError:
            continue  # check_log reports it
        if isinstance(event, Vouched) and event.vouched:
            own[event.hospital] = event.fingerprint
        elif isinstance(event, Vouched):
            own.pop(event.hospital, None)
        elif isinstance(event, VouchersTaken):
            taken[event.signer] = event.issued
    trust = store.trust()
    issued = {signer: given.issued for signer, given in trust.given.items()}
    return [
        *(_own_sentence(name) for name in _differing(own, trust.own)),
        *(_given_sentence(name) for name in _differing(taken, issued) if name in trust.own),
    ]


def _differing(recorded: Mapping[str, object], held: Mapping[str, object]) -> list[str]:
    return sorted(
        name for name in recorded.keys() | held.keys() if recorded.get(name) != held.get(name)
    )


def _own_sentence(hospital: str) -> str:
    return (
        f"the vouchers of this site and its audit log differ on {hospital}: a change was cut short "
        f"by a crash, or an older copy was put back; run 'consilium-site vouch {hospital} "
        f"FINGERPRINT' or 'vouch --withdraw {hospital}' again"
    )


def _given_sentence(hospital: str) -> str:
    return (
        f"the vouchers that {hospital} gave are not those that the audit log names last; ask it "
        "for its latest and run 'consilium-site vouch --import FILE', or vouch for it no longer"
    )
