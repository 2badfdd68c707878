"""A small outside package that adds a source: its files, its wheel, and its installation by pip."""

import subprocess
import sys
import zipfile
from pathlib import Path

MODULE = '''
"""Heart rates from a CSV of patient, hour, value, died, as a hospital's people might write it."""

import csv
from pathlib import Path

import numpy as np

from consilium.client.sources.common.settings import DataSettings, FilePath
from consilium.client.sources.common.source import Counted, Patient, Stay, Tally
from consilium.client.sources.registry import SourceKind

Path(__file__).with_name("loaded").touch()  # the test looks whether it was imported


class AcmeSettings(DataSettings):
    path: FilePath
    factor: float = 1.0


class Acme(Counted):
    name = "acme-lis"

    def __init__(self, settings):
        self._settings, self._tally = settings, Tally()

    def read_patients(self, study):
        self._tally = Tally()
        people = {}
        for row in csv.DictReader(self._settings.path.open()):
            people.setdefault((row["patient"], row["died"]), []).append(row)
        for (patient, died), rows in people.items():
            stay = Stay(
                stay_id=patient,
                hours_E=np.array([row["hour"] for row in rows], dtype=np.float32),
                variable_E=np.zeros(len(rows), dtype=np.int16),
                value_E=np.array([row["value"] for row in rows], dtype=np.float32)
                * np.float32(self._settings.factor),
                label=float(died),
            )
            self._tally.patients += 1
            self._tally.stays += 1
            self._tally.events += len(rows)
            yield Patient(patient_id=patient, stays=(stay,))


SOURCE = SourceKind(AcmeSettings, lambda settings, study: Acme(settings))
BROKEN = 7
'''
NAME, VERSION = "acme-consilium", "1.2"


def make_wheel(folder: Path, *, name: str = NAME, target: str = "acme_lis:SOURCE") -> Path:
    """A wheel of the package, as a hospital's people would build it."""
    inner = f"{name.replace('-', '_')}-{VERSION}"
    wheel = folder / f"{inner}-py3-none-any.whl"
    module = target.partition(":")[0]
    files = {
        f"{module}.py": MODULE,
        f"{inner}.dist-info/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {VERSION}\n",
        f"{inner}.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: test\n"
        "Root-Is-Purelib: true\nTag: py3-none-any\n",
        f"{inner}.dist-info/entry_points.txt": f"[consilium.sources]\nacme-lis = {target}\n",
    }
    record = "".join(f"{path},,\n" for path in files)
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, text in (files | {f"{inner}.dist-info/RECORD": record}).items():
            archive.writestr(path, text)
    return wheel


def install(wheel: Path, into: Path) -> Path:
    """Install a wheel by pip into a fresh folder."""
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps",
         "--disable-pip-version-check", "--target", into, wheel],
        check=True, capture_output=True,
    )  # fmt: skip  # options beside their values
    return into


def unpack(wheel: Path, into: Path) -> Path:
    """Install a wheel as pip does, which is to unpack it."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(into)
    return into
