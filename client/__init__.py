"""One hospital: its data, its privacy budget, its half of every protocol.

The rooms below import each other only downwards (see the contracts in pyproject.toml); of
Consilium's other packages, only ``shared`` may be imported.
"""
