"""Whole runs: a study from its records to the files of its result, once or in every setting.

A study and its cohorts enter; a folder of files and its record come out. Commands and the Python
API stand on this room and add nothing to what it computes.
"""
