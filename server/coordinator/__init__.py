"""The coordinator's folder, its certificates, its register of sites and studies, and enrolment.

Enrolment requests and submitted studies enter; no update ever does.
"""
