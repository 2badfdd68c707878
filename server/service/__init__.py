"""The coordinator's processes: one a study, their supervisor, the monitor, the operator's page.

The folder's state and study results enter; people read what comes out.
"""
