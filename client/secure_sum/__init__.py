"""The site's half of the secure sum: letters to other sites, masks, the journal of masked rounds.

Whole numbers and messages may enter, records never; only public keys, masked vectors, signatures
and shares leave.
"""
