"""Many simulated sites in one process, for research and for ``make demo``, and the Python API.

It may import ``client``, ``server`` and ``shared``; none of these imports it.
"""
