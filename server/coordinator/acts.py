"""Who did it: an operator's act in the audit log, before it is done."""

import getpass

from consilium.server.coordinator.folder import CoordinatorFolder
from consilium.shared.audit.events import Acted
from consilium.shared.audit.own_log import open_audit
from consilium.shared.errors import SettingsError

LONGEST_NAME = 100


def note_act(folder: CoordinatorFolder, act: str, subject: str, *, by: str = "") -> str:
    """Record that an operator is about to do something; return the name as recorded.

    Args:
        folder: the coordinator's.
        act: the command.
        subject: the site, study or file that it is done to; empty if to none.
        by: the operator's name as given; the machine's account stands beside it, or alone.

    Raises:
        SettingsError: nobody can have this name.
        AuditError: it cannot be recorded, so it must not be done.
    """
    if len(by) > LONGEST_NAME or not by.isprintable():
        raise SettingsError(
            f"--as: a name has at most {LONGEST_NAME} characters, all printable; give another"
        )
    account = _account()
    name = f"{by} (account {account})" if by else account
    open_audit(folder).append(Acted(by=name, act=act, subject=subject[:500]))
    return name


def _account() -> str:
    """Return the name of the account that runs this process, or its number if it has none."""
    try:
        return getpass.getuser()[:LONGEST_NAME]
    except (KeyError, OSError):
        return "without a name"
