"""Small EDF files: channels that say where they are, and headers with one thing wrong."""

from pathlib import Path

import numpy as np
import pytest

edfio = pytest.importorskip("edfio")


def ramp(seconds: int = 8, rate: int = 16, scale: float = 1.0) -> np.ndarray:
    """A signal whose value is the time in seconds."""
    return np.arange(seconds * rate) / rate * scale


def write_edf(
    path: Path,
    channels: dict[str, tuple[np.ndarray, int, str]] | None = None,
    *,
    patient: str = "P1",
    notes: list[tuple[float, float, str]] | None = None,
    bdf: bool = False,
) -> Path:
    """Write channels by name: samples, rate in Hz, unit; notes are onset, duration, text."""
    channels = {"C3": (ramp(), 16, "mmHg")} if channels is None else channels
    kind, signal = (edfio.Bdf, edfio.BdfSignal) if bdf else (edfio.Edf, edfio.EdfSignal)
    signals = [
        signal(data, rate, label=name, physical_dimension=unit, physical_range=(-100, 100))
        for name, (data, rate, unit) in channels.items()
    ]
    annotations = [edfio.EdfAnnotation(*note) for note in notes or []]
    path.parent.mkdir(parents=True, exist_ok=True)
    whose = edfio.Patient(code=patient)
    kind(signals, patient=whose, annotations=annotations, data_record_duration=1).write(path)
    return path


def patch(path: Path, place: int, text: bytes) -> None:
    """Write bytes into a file."""
    content = bytearray(path.read_bytes())
    content[place : place + len(text)] = text
    path.write_bytes(bytes(content))


def move(path: Path, number: int, seconds: str) -> None:
    """Make the file discontinuous: data record ``number`` begins at ``seconds``."""
    patch(path, 192, b"EDF+D")
    content = path.read_bytes()
    old = f"+{number}\x14\x14".encode()
    assert content.count(old) == 1
    new = f"+{seconds}\x14\x14".encode()
    path.write_bytes(content.replace(old + b"\0" * (len(new) - len(old)), new, 1))
