"""HL7 version 2: files of messages.

ADT and ORU messages may enter; the source ``hl7`` comes out.
"""
