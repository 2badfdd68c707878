"""From the events of stays to the tensors a network reads: windows, features, cohort, statistics.

Patients as a source yields them may enter; tensors and clipped sums come out.
"""
