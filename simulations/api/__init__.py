"""The Python API, as ``import consilium`` offers it: frozen, typed objects around whole runs.

Studies, records and folders of runs enter; results come out. Nothing here computes: what a result
holds is what the commands write.
"""
