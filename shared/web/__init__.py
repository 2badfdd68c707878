"""A small web application on loopback: named persons, roles, sessions, forms that cannot be forged.

Both sides' pages are built on it. What a browser sends enters here and is bounded and checked; what
a page does, it does through the functions that the commands use.
"""
