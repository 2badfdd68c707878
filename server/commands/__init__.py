"""The subcommands of ``consilium-coordinator``, and the options they share.

Arguments and files enter here and are checked once; the other rooms do the work.
"""
