"""The secure sum's common ground: messages, whole-number encoding, Shamir shares, mask graph.

Bounded real vectors enter the encoding; every message is parsed strictly.
"""
