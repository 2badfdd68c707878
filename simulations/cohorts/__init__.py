"""Which records each simulated site holds, and which patients the researcher tests on.

A study and a folder of records enter; a source of records for each site comes out, and one or
several for the test.
"""
