"""Many sites in one process, for research and for ``make demo``.

May use ``client``, ``server`` and ``shared``; nothing imports it.
"""
