"""What a site computes and answers in a round: statistics, training, evaluation, bounded sums.

Messages about the approved study enter through the session, patients through the cohort.
"""
