"""The strict, bounded encoding of every message, and whole messages as one body.

Bytes from the network enter; what does not fit is refused before it is used.
"""
