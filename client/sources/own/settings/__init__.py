"""The ``[data]`` tables of a hospital's own systems, checked when they are read.

Tables of ``site.toml`` may enter; frozen settings come out. Nothing here opens file or database.
"""
