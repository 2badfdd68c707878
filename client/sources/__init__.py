"""Sources of patient records; ``registry`` opens the one that ``[data] source`` names.

``own`` reads a hospital's systems, ``recorded`` images, signals and molecules, ``public`` public
collections, ``common`` is shared by all; ``reach`` asks whether records are there and answer.
Settings may enter; patients come out, with values in the study's units and inside its ranges.
"""
