"""The privacy budget: releases reserved on disk before they leave, and refused beyond the budget.

Costs of releases enter, never records; nothing leaves a site that did not pass here.
"""
