"""``python -m consilium.client`` is ``consilium-site``."""

from consilium.client.cli import main

main()
