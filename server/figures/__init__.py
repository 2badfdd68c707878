"""Turns summed counts into figures: AUROC, calibration, groups of patients, verdicts.

Only sums over sites, or a researcher's own test patients, enter.
"""
