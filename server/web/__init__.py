"""The operator's page with sign-in: viewers look, operators act, each act under a name.

It shows what the monitor's page shows and acts through the functions that the commands act with.
"""
