"""Whether this hospital's data are good enough for a study, in counts and distributions.

Checked records enter; counts and sentences come out, never a row.
"""
