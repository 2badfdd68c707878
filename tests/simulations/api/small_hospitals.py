"""A small study and three hospitals' own records for it, made of random numbers."""

from collections.abc import Iterator

import numpy as np

import consilium

TEXT = """
name = "own"
title = "Records of one's own"
rounds = 1
seed = 5
sites = ["north", "east", "south"]
[data]
source = "hospital"
label = "death"
window_h = 6
minimum_patients = 5
[model]
hidden = 4
[training]
local_steps = 1
sampling_rate = 0.5
learning_rate = 0.05
[privacy]
mode = "none"
[evaluation]
validation_fraction = 0.2
passes = 1
[variables]
HR = { unit = "/min", low = 10, high = 300, center = 85, spread = 18 }
Age = { unit = "a", low = 15, high = 120, center = 64, spread = 17, role = "static" }
"""


class Ward:
    """Patients whose heart beats faster before they die; always the same for a seed."""

    name = "random-numbers"

    def __init__(self, seed: int, patients: int = 40) -> None:
        self.seed, self.patients = seed, patients

    @property
    def report(self) -> consilium.ReadReport:
        return consilium.ReadReport(
            patients=self.patients, stays=self.patients, events=7 * self.patients, duplicates=0,
            outside_window=0, unlabelled=0, filtered=0, out_of_range={}, repaired={},
            missing_static={}, skipped=(),
        )  # fmt: skip  # a table of zeros

    def read_patients(self, study: consilium.Study) -> Iterator[consilium.Patient]:
        stream = np.random.default_rng(self.seed)
        for number in range(self.patients):
            died = float(stream.random() < 0.4)
            beats = 85 + 25 * died + stream.normal(0, 12, 6)
            stay = consilium.Stay(
                stay_id=f"stay-{self.seed}-{number}",
                hours_E=np.array([0, *range(6)], dtype=np.float32),
                variable_E=np.array([1, *[0] * 6], dtype=np.int16),
                value_E=np.array([stream.uniform(30, 90), *beats], dtype=np.float32),
                label=died,
            )
            yield consilium.Patient(patient_id=f"patient-{self.seed}-{number}", stays=(stay,))


def study() -> consilium.Study:
    return consilium.parse_study(TEXT)


def records() -> consilium.Records:
    wards = {site: Ward(number) for number, site in enumerate(study().sites)}
    tests = {"north": Ward(10), "east": Ward(11), "south": Ward(12)}
    return consilium.Records(sites=wards, test=tests, described="wards made up", synthetic=True)
