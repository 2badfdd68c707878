"""Many sites in one process, for research and for `make demo`."""
