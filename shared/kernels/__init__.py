"""The compiled CPU kernel for recurrent cells: optional, built when a C compiler is there.

``python -m consilium.shared.kernels`` builds it and says which variant is in use, or why none is.
"""
