"""The Python API, as ``import consilium`` offers it: frozen, typed objects around whole runs.

Studies, records and folders of runs enter; results come out. Nothing is computed here: a result
holds what the commands write.
"""
