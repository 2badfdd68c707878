"""A finished model in use at this hospital: batch scores, the streaming scorer, recalibration.

Signed models and this hospital's own stays may enter; every result stays at the hospital.
"""
