"""The HTML report of a run, and the files that a run writes.

Results or ``run.json`` enter; JSON files and a page without scripts come out.
"""
