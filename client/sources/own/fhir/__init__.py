"""FHIR R4: exports in folders, and servers.

Resources may enter; the source ``fhir`` comes out.
"""
