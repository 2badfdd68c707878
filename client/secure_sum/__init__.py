"""The site's half of the secure sum: channels, masks, the journal of masked rounds.

Whole numbers and messages may enter, records never; only public keys, masked vectors, signatures
and shares leave.
"""
