"""Shared by all sources: the types of stays and patients, cleaning, archives, settings.

Raw values may enter and are checked; nothing here knows a hospital system or a collection.
"""
