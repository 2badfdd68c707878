"""A hospital's own tables in files: CSV, Parquet, Arrow and XLSX, long or wide.

Files may enter, in pieces; the source ``tables`` comes out.
"""
