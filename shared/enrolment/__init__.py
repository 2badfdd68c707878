"""What site and coordinator say outside a round: invitations, enrolment, offered studies, builds.

Signed statements enter and are checked before anything is kept.
"""
