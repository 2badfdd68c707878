"""The coordinator's own belongings: folder, certificates, register of sites and studies, audit log.

Enrolment requests and submitted studies enter; no update ever does.
"""
