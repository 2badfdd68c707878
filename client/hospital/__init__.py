"""What a hospital keeps and decides: its folder, keys, policy, approvals and audit log.

Only this hospital's own files may enter; other rooms ask here before they act.
"""
