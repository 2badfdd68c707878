"""The running site: its process, its one outgoing connection, Flower's node, its status.

Messages from the coordinator enter here as bytes, and go to the session of their study.
"""
