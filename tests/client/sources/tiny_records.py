"""Tiny records in the formats as distributed, with something to learn in them."""

import csv
import io
import zipfile
from pathlib import Path

import numpy as np

from consilium.client.sources.public.eicu_demo import SERIES
from consilium.client.sources.public.parkinsons import VOICE
from consilium.client.sources.public.physionet2019 import HEADER, UNITS

HEART = "63,1,4,145,233,1,2,150,0,2.3,3,?,6,0\n67,1,4,160,0,0,2,108,1,1.5,2,3,3,2\n"


def psv(hours: int, *, septic_from: int | None = None, heart_rate: float = 80.0) -> str:
    """One patient's table of the Challenge 2019: heart rate, age, hour and label alone."""
    lines = [HEADER]
    for hour in range(1, hours + 1):
        cells = dict.fromkeys(UNITS, "NaN") | {
            "HR": f"{heart_rate + hour}",
            "Age": "64.5",
            "Gender": "1",
            "ICULOS": str(hour),
        }
        label = int(septic_from is not None and hour >= septic_from)
        lines.append("|".join([*cells.values(), str(label)]))
    return "\n".join(lines) + "\n"


def write_physionet2019(folder: Path, patients: int = 60) -> Path:
    """Both hospital systems' zips; every third patient, with a fast heart, becomes septic."""
    folder.mkdir(parents=True, exist_ok=True)
    for system in "AB":
        with zipfile.ZipFile(folder / f"training_set{system}-first5000.zip", "w") as archive:
            for number in range(patients):
                septic = number % 3 == 0
                text = psv(
                    6 + number % 4,
                    septic_from=4 if septic else None,
                    heart_rate=110 if septic else 70,
                )
                archive.writestr(f"training_set{system}/p{system}{number:05d}.psv", text)
    return folder


def write_molecules(folder: Path, molecules: int = 90) -> Path:
    """BBBP.csv and tox21.csv; a chlorine decides the first outcome, a nitrogen the second."""
    folder.mkdir(parents=True, exist_ok=True)
    smiles = [
        "C" * (1 + number // 4) + "Cl" * (number % 2) + "N" * (number // 2 % 2)
        for number in range(molecules)
    ]
    with (folder / "BBBP.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["num", "name", "p_np", "smiles"])
        rows.writerows([n, "x", n % 2, text] for n, text in enumerate(smiles))
    with (folder / "tox21.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["NR-AR", "SR-p53", "mol_id", "smiles"])
        rows.writerows(
            ["" if n % 7 == 0 else n % 2, n // 2 % 2, f"T{n}", text]
            for n, text in enumerate(smiles)
        )
    return folder


def write_volumes(path: Path, classes: int = 3, volumes: int = 60) -> Path:
    """An .npz as of MedMNIST; the brighter the later slices, the higher the class."""
    stream = np.random.default_rng(3)
    arrays = {}
    for split in ("train", "test"):
        label_N = np.arange(volumes) % classes
        images = stream.integers(0, 30, (volumes, 6, 4, 4)).astype(np.uint8)
        images[:, 3:] += (60 * label_N)[:, None, None, None].astype(np.uint8)
        arrays |= {f"{split}_images": images, f"{split}_labels": label_N[:, None].astype(np.uint8)}
    np.savez(path, **arrays)
    return path


def parkinsons_csv(people: int = 30) -> str:
    """Weekly recordings over half a year; the UPDRS moves with the jitter."""
    text = io.StringIO()
    rows = csv.writer(text)
    rows.writerow(["subject#", "age", "sex", "test_time", "motor_UPDRS", "total_UPDRS", *VOICE])
    for person in range(people):
        slope = 0.3 if person % 2 else -0.3
        for week in range(26):
            score = 25 + slope * week
            voice = [0.01 + 0.01 * (slope > 0)] * len(VOICE)
            rows.writerow([person, 60, person % 2, 7 * week + 1, score, score + 5, *voice])
    return text.getvalue()


def write_eicu(folder: Path) -> Path:
    """Three stays of two persons in two hospitals, with hourly kidney labels and one outcome."""
    import polars as pl

    for task in ("aki", "mortality24"):
        (folder / task).mkdir(parents=True)
        hours = pl.DataFrame({"stay_id": [1, 1, 1, 2, 2, 3], "hour": [0, 1, 3, 0, 1, 0]})
        dyn = hours.with_columns(
            pl.duration(hours=pl.col("hour")).cast(pl.Duration("ms")).alias("time"),
            *(pl.lit(None, pl.Float64).alias(name) for name in SERIES if name != "hr"),
            pl.Series("hr", [80.0, None, 90.0, 70.0, 71.0, 60.0]),
        ).drop("hour")
        dyn.write_parquet(folder / task / "dyn.parquet")
        if task == "aki":
            outcomes = dyn.select("stay_id", "time").with_columns(
                pl.Series("label", [False, False, True, False, False, None])
            )
        else:
            outcomes = pl.DataFrame({"stay_id": [1, 2, 3], "label": [1, 0, 0]})
        outcomes.write_parquet(folder / task / "outc.parquet")
        pl.DataFrame(
            {
                "stay_id": [1, 2, 3],
                "age": [50.0, 51.0, None],
                "sex": ["Male", "Female", "Other"],
                "height": [180.0, 160.0, 170.0],
                "weight": [80.0, None, 70.0],
            }
        ).write_parquet(folder / task / "sta.parquet")
    (folder / "patient.csv").write_text(
        "patientunitstayid,uniquepid,hospitalid,region\n1,a,73,South\n2,a,73,South\n3,b,80,\n"
    )
    return folder
