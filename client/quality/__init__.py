"""Whether this hospital's data are good enough for a study, in counts and distributions.

Cleaned records may enter; counts, figures and sentences come out, never a row.
"""
