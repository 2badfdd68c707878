"""The one model of time of all sources: precision, the hospital's zone, comparison, midnights.

Texts, dates and numbers of a hospital's records may enter; spans of time come out. Nothing here
knows a system or a table. The rules are in ``docs/time.md``.
"""
