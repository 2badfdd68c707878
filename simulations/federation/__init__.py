"""A whole federation in one process: sites, coordinator, Flower's messages without a network.

A study and one source a site enter; the trained model and round records come out.
"""
