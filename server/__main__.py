"""``python -m server`` is ``consilium-coordinator``."""

from server.cli import main

main()
