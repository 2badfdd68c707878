"""``python -m simulations`` is ``consilium-simulate``."""

from simulations.cli import main

main()
