"""What a coordinator's process does to itself: end with its parent, give freed memory back.

Nothing of a study enters.
"""
