"""Files written whole or not at all, SQLite transactions, and TOML read strictly.

Paths and text enter; a mistake ends in one sentence, a crash leaves the old content.
"""
