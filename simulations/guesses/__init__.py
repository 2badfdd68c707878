"""Guesses about records that nobody has described: a study and settings to be corrected.

A file or folder enters; two texts in TOML come out, with a comment on every guess. What could mean
two things is refused with the option that decides it.
"""
