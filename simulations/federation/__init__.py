"""A whole federation in one process: sites, coordinator, and Flower's messages without a network.

A study and a source of records for each site enter; the trained model and a record of each round
come out.
"""
