"""Identities, key agreement, sealing, AES-CTR keystreams, and the exact bytes that are signed.

Keys and bytes enter; everything else cryptographic is built on these three files.
"""
