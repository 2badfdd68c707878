"""From summed counts to figures: AUROC, calibration, groups, verdicts.

Only sums over sites, or a researcher's test patients, enter.
"""
