"""``python -m consilium.server`` is ``consilium-coordinator``."""

from consilium.server.cli import main

main()
