"""Backup of a state folder, and a restore that refuses to forget what was spent since.

A folder and its audit log enter; one file comes out, or the folder again.
"""
