"""Experiments on a simulated study: baselines, left-out hospitals, joining, planning, attacks.

A study and its cohorts enter; frozen results come out.
"""
