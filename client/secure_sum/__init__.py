"""The site's half of the secure sum: channels, masks, the journal of masked rounds.

Whole numbers and messages enter, never records; only masked vectors and shares leave.
"""
