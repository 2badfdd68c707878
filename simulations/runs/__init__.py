"""Whole runs: a study from its records to the files of its result, once or in every setting.

A study and its cohorts enter; a folder of files and its record come out. The commands and the
Python API call this room, and compute nothing more.
"""
