"""One study from start to finish: ``run_study``, the server's optimiser, checkpoints, export.

Sums enter; global weights, round records and a signed model come out.
"""
