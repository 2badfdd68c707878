"""The coordinator: orchestrates rounds and learns sums, never one site's update.

Rooms below import each other only downwards (see the contracts in pyproject.toml); of the other
packages only ``shared`` may enter.
"""
