"""Files written whole or not at all, SQLite transactions, TOML read strictly, installed packages.

Paths and text enter; a mistake ends in one sentence, a crash leaves the old content.
"""
