"""Permission bits of what only this account may use: keys, state, and what tells of patients."""

PRIVATE_FILE = 0o600
PRIVATE_FOLDER = 0o700
