"""What a person types: the subcommands of ``consilium-site``.

Arguments and files enter here and are checked once; the other rooms do the work.
"""
