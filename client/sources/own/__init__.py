"""A hospital's own systems and file forms: tables, MEDS, OMOP, FHIR, waveforms, images, molecules.

The hospital's files and databases enter, read-only, its codes, units and words become the study's
(``translation``), and patients come out.
"""
