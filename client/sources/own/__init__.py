"""A hospital's own systems and file forms: tables, databases, MEDS, OMOP, FHIR and HL7.

The hospital's files and databases may enter, read-only; patients come out, with codes, units and
words translated to the study's (``translation``).
"""
