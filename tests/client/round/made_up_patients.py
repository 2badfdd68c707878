"""Random patients for tests of training, and keystreams to draw with."""

import torch

from consilium.client.round.training_set import TrainingSet
from consilium.shared.crypto.keystream import Keystream

FEATURES = 4


def stream(number: int) -> Keystream:
    return Keystream(number.to_bytes(32, "little"))


def patients(count: int, *, stays: int = 1, steps: int = 6, seed: int = 0) -> TrainingSet:
    generator = torch.Generator().manual_seed(seed)
    rows = count * stays
    x = torch.randn(rows, steps, FEATURES, generator=generator)
    lengths = torch.randint(1, steps + 1, (rows, 1), generator=generator)
    order = torch.randperm(rows, generator=generator)
    return TrainingSet(
        x_NTF=x,
        mask_NT=torch.arange(steps)[None, :] < lengths,
        y=(x[:, 0, 0] > 0).float(),
        patient_N=torch.arange(rows)[order] % count,
        patients=count,
    )


def one_patient_less(data: TrainingSet) -> TrainingSet:
    """The same patients without the last one."""
    keep = data.patient_N < data.patients - 1
    return TrainingSet(
        x_NTF=data.x_NTF[keep],
        mask_NT=data.mask_NT[keep],
        y=data.y[keep],
        patient_N=data.patient_N[keep],
        patients=data.patients - 1,
    )
