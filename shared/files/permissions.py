"""Permission bits of what only this account may use: keys, state, and patient-derived files."""

PRIVATE_FILE = 0o600
PRIVATE_FOLDER = 0o700
