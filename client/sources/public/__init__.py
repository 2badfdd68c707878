"""Public collections, read as they are distributed, one file each.

Their files enter; patients come out.
"""
