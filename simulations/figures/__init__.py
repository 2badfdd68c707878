"""Figures on the test patients that the researcher holds, with intervals, and central training.

Scores and true outcomes enter; estimates come out.
"""
