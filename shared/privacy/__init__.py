"""What a release costs and the noise it needs: accounting, calibration, exact noise.

Mechanisms as frozen events enter; epsilons and whole-number noise come out.
"""
