"""What every command and service needs: exit statuses, logs, a loopback HTTP service, metrics.

Nothing of a study enters; no record, key or single site's figure is ever logged.
"""
