"""MEDS: datasets of the Medical Event Data Standard.

A folder of Parquet files may enter; the source ``meds`` comes out.
"""
