"""Which records each simulated site holds, and which patients the researcher tests on.

A study and a folder of records enter; one source a site comes out.
"""
