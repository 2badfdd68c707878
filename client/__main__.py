"""``python -m client`` is ``consilium-site``."""

from client.cli import main

main()
