"""What a coordinator is set to unless told otherwise; alone here, so that ``--help`` reads it fast.

Units: hours, ports.
"""

DEFAULT_HOURS = 72.0  # how long an invitation is worth
DEFAULT_PORT = 9092  # the one port that sites reach
MONITOR_PORT = 9093  # of 127.0.0.1: the operator's page, health and metrics
