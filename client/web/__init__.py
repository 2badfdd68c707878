"""The site's page, for people who do not use a command line.

It shows what the commands show and decides through the functions they decide with. What it shows of
a hospital's records stays on loopback, for persons who signed in.
"""
