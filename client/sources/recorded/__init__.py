"""Images, signals and molecules: records that are files or lines, and not rows of a system.

Files of DICOM, NIfTI, WFDB, EDF and SMILES may enter, with a table of persons and labels beside
them; patients come out, put together by person.
"""
