"""Which build this is."""

from importlib.metadata import PackageNotFoundError, version

try:
    VERSION = version("consilium-fl")
except PackageNotFoundError:  # run from a checkout that was never installed
    VERSION = "0+unknown"
