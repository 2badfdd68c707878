"""The networks, recurrent and others: layers, per-patient gradients, normalisation, weights.

Study and tensors enter; nothing here knows where the tensors came from.
"""
