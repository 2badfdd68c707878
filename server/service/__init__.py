"""The running coordinator: a process for each study, the supervisor, the monitor, its web page.

The coordinator's folder and the results of rounds enter; what comes out is for people to read.
"""
