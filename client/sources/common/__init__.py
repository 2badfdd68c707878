"""What every source shares: stays and patients, cleaning, archives, settings.

Raw values enter and are checked; nothing here knows a hospital system or a collection.
"""
