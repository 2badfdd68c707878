"""A finished model in use at this hospital: scores in batches, streams and FHIR, recalibration.

Signed models and this hospital's own stays may enter, and on loopback what its EHR asks; every
result stays at the hospital.
"""
