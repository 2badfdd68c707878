"""The audit log of either side: append-only, hash-chained, signed, and its verification.

Frozen events enter; no record, key or single site's figure ever does.
"""
