"""Build the kernel and say which variant is in use."""

import sys

from consilium.shared.kernels.build import kernel_status

if __name__ == "__main__":
    sys.stdout.write(f"{kernel_status().sentence}\n")
