"""Everything between the coordinator and Flower: gate, authentication, messages, database.

Bytes from the network enter and are checked here; no other room of the server imports flwr.
"""
