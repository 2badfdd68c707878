"""The recurrent networks: cells, layers, pooling, per-patient gradients, normalisation, weights.

Study and tensors enter; nothing here knows where the tensors came from.
"""
