"""Explains a model's output for one stay: attributions, and models run step by step.

A loaded model and tensors may enter; nothing in this room reads files or sends anything.
"""
