"""Public collections, read as they are distributed; one module for each collection.

Their files may enter, read-only; patients come out.
"""
