"""Example studies, shipped as data; `consilium-simulate demo` reads its own from here."""
