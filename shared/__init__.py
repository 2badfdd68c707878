"""What both sides must agree on; imports nothing else of ours.

Any package may use these rooms; they import each other only downwards (see pyproject.toml).
"""
