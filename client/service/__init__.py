"""The running site: its process, its one outgoing connection, Flower's node, its status.

Messages from the coordinator enter here, as bytes, and are passed to their study's session.
"""
