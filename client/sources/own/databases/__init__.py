"""A hospital's databases, read-only: any schema by a query, and OMOP.

Connections and passwords may enter; the sources ``sql`` and ``omop`` come out.
"""
