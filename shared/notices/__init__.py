"""Notices to people who are not at the screen: what may be told, an outbox on disk, mail, webhooks.

Events enter, made of names, round numbers and dates; fixed sentences leave, each once, to the
addresses that this side's own people wrote into its settings. Nothing of a record ever enters.
"""
