"""From stays and events, in the hospital's codes and units, to the patients of a study.

Rows of any system may enter, as tables of one form (``event_frames``, ``stay_frames``); patients
come out. Nothing here knows a system or a file.
"""
