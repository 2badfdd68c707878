"""Housekeeping of a coordinator's process: ending with its parent, giving freed memory back.

Nothing of a study enters.
"""
