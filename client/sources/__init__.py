"""Sources of patient records, found by the name that ``[data] source`` gives (``registry``).

``own`` reads a hospital's systems, ``public`` public collections, ``common`` is what both share.
Settings enter; patients come out, in the study's units and inside its ranges.
"""
