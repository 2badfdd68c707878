"""What a site computes and answers in a round: training, statistics, evaluation, bounded sums.

Messages of the approved study enter through the session, tensors through the cohort.
"""
