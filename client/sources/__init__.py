"""Sources of patient records, found by the name that ``[data] source`` gives (``registry``).

Settings enter; patients come out, in the study's units and inside its ranges.
"""
