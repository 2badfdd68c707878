"""A hospital's own systems and file forms: tables, MEDS, OMOP, FHIR, waveforms, images, molecules.

The hospital's files and databases may enter, read-only; patients come out, with codes, units and
words translated to the study's (``translation``).
"""
