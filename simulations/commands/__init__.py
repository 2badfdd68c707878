"""The subcommands of ``consilium-simulate``, and what they print.

Arguments and files enter here and are checked once; the other rooms do the work.
"""
