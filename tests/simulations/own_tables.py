"""Tables of one's own for simulations: 90 made-up persons in three wards, and a small study."""

import random
from pathlib import Path

STUDY = """
name = "own"
title = "Records of one's own"
rounds = 1
seed = 5
sites = ["made-1", "made-2", "made-3"]
[data]
source = "hospital"
label = "died"
window_h = 8
minimum_patients = 3
[model]
hidden = 2
[training]
local_steps = 1
sampling_rate = 0.5
[privacy]
mode = "none"
[variables]
HR = { unit = "/min", low = 10, high = 300, center = 85, spread = 18 }
Age = { unit = "a", low = 15, high = 120, center = 64, spread = 17, role = "static" }
"""
RECORDS = """
[data]
source = "tables"
[data.stays]
file = "stays.csv"
patient = "person"
start = "start"
[[data.events]]
file = "events.csv"
layout = "wide"
stay = "person"
time = "time"
[data.variables]
HR = { unit = "/min" }
Age = { column = "age", unit = "a" }
"""
WARDS = ("North", "East", "South wing")


def write_tables(folder: Path, *, persons: int = 90, first: int = 0, blank: int = 0) -> Path:
    """Write stays.csv, events.csv and records.toml; return the folder.

    Args:
        folder: made if it is not there.
        persons: how many; the n-th one's first day is the n-th of 2024.
        first: number of the first person.
        blank: so many persons have no ward.
    """
    folder.mkdir(parents=True, exist_ok=True)
    chance = random.Random(first)
    stays, events = ["person,start,died,age,ward,split,one"], ["person,time,HR"]
    for number in range(first, first + persons):
        died = number % 10 in (0, 3, 6)
        month, day = divmod(number - first, 28)
        start = f"2024-{month + 1:02d}-{day + 1:02d}"
        ward = "" if number < first + blank else WARDS[number % 3]
        split = "test" if number % 5 == 0 else "train"
        stays.append(
            f"{number},{start} 08:00,{int(died)},{chance.randint(30, 90)},{ward},{split},x"
        )
        for hour in range(3):
            beats = 80 + 20 * died + chance.randint(-9, 9)
            events.append(f"{number},{start} {9 + hour:02d}:00,{beats}")
    (folder / "stays.csv").write_text("\n".join(stays) + "\n")
    (folder / "events.csv").write_text("\n".join(events) + "\n")
    (folder / "records.toml").write_text(RECORDS)
    return folder
