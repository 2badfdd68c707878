"""The default settings of a coordinator; it imports nothing, so that ``--help`` is fast."""

DEFAULT_HOURS = 72.0  # hours for which an invitation is valid
DEFAULT_PORT = 9092  # the only port that sites connect to
MONITOR_PORT = 9093  # the operator's page, health and metrics
MONITOR_LISTEN = "127.0.0.1"
