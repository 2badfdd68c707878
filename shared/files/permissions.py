"""Permission bits of what only this account may use: keys, state, and patient-derived files."""

import os

PRIVATE_FILE = 0o600
PRIVATE_FOLDER = 0o700


def read_by_others(status: os.stat_result) -> bool:
    """Tell whether accounts other than this one may read or change a secret that people put there.

    A file of root's that this account reads through its group is as private as one of its own:
    Kubernetes hands secrets to a container like that (mode 0440, group ``fsGroup``). PostgreSQL
    takes its server's key under the same rule (``ssl_key_file``).
    """
    by_group = status.st_uid == 0 and os.geteuid() != 0
    return bool(status.st_mode & (0o037 if by_group else 0o077))
