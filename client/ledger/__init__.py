"""The privacy budget: releases are reserved on disk before they leave, refused beyond the budget.

Costs of releases may enter, records never; results of a private study leave only after being
charged here.
"""
