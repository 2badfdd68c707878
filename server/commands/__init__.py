"""What an operator types: the subcommands of ``consilium-coordinator``.

Arguments and files enter here and are checked once; the other rooms do the work.
"""
