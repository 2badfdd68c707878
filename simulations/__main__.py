"""``python -m consilium.simulations`` is ``consilium-simulate``."""

from consilium.simulations.cli import main

main()
