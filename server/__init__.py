"""The coordinator: it runs the rounds of a study and learns sums, never one site's update.

Its rooms import each other only downwards (the contracts in pyproject.toml give the order); of the
other packages only ``shared`` may be imported.
"""
