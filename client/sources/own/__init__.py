"""A hospital's own systems and file forms: tables, MEDS, OMOP, FHIR, waveforms, images, molecules.

The hospital's files and databases enter, read-only; patients come out.
"""
