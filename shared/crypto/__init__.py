"""Identities, key agreement, boxes, keystreams, hash trees, and the exact bytes that are signed.

Keys and bytes enter; everything else cryptographic is built on these five files.
"""
