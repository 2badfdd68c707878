"""The coordinator's half of the secure sum: asks the sites, adds masked vectors, removes the masks.

Masked vectors and shares of secrets enter; only sums over at least ``minimum_sites`` come out.
"""
