"""One hospital: its data, its privacy budget, its half of every protocol.

Rooms below import each other only downwards (see the contracts in pyproject.toml); of the other
packages only ``shared`` may enter.
"""
