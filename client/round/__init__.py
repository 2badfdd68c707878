"""What a site computes and answers in a round: statistics, training, evaluation, bounded sums.

Messages of the approved study enter through the session, tensors through the cohort.
"""
