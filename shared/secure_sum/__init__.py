"""The secure sum's common ground: messages, whole-number encoding, shares, mask graph.

Bounded real vectors enter the encoding; every message is parsed strictly.
"""
