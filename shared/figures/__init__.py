"""Arithmetic on counts of risks: metrics, curves, operating ranges, recalibration.

Counts in bins enter; figures come out, for one site, a sum over sites, or test patients alike.
"""
