"""Which kernel, versions and cores this machine uses, and why; for bug reports."""

import os
import platform
from importlib.metadata import version

import torch

from consilium.shared.kernels.build import kernel_status


def checkup() -> dict[str, str]:
    """Return what is in use, a short sentence for each name; builds the kernel if necessary."""
    cuda = torch.cuda.is_available()
    return {
        "consilium": version("consilium-fl"),
        "python": f"{platform.python_version()} on {platform.system()} {platform.machine()}",
        "torch": f"{torch.__version__}, {'CUDA ' + str(torch.version.cuda) if cuda else 'CPU'}",
        "flwr": version("flwr"),
        "opacus": version("opacus"),
        "cryptography": version("cryptography"),
        "cores": f"{len(os.sched_getaffinity(0))} usable of {os.cpu_count()}",
        "kernel": f"{kernel_status().sentence}; gru-d runs in PyTorch",
    }
