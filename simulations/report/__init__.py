"""The HTML report of a run, and the files a run leaves.

Frozen results or ``run.json`` enter; one page without scripts comes out.
"""
