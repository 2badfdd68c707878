"""The privacy budget of a hospital that sets none; alone here, so that ``--help`` reads it fast."""

LIFETIME_EPSILON = 16.0  # for all studies together
LIFETIME_DELTA = 1e-5  # probability with which that guarantee may fail
