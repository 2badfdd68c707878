"""The coordinator's half of the secure sum: asks the sites, adds masked vectors, takes masks off.

Masked vectors and shares enter; only sums over at least ``minimum_sites`` come out.
"""
