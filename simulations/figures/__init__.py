"""Figures of test patients whom the researcher holds, with intervals.

Scores and truths enter; estimates come out.
"""
