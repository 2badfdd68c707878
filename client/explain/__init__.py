"""Why a model says what it says of one stay: attributions, and models run step by step.

A loaded model and tensors enter; nothing in this room reads files or sends anything.
"""
