"""Made-up hearts in WFDB at any rate, a wave at every beat, and a study that reads them."""

from pathlib import Path

import numpy as np
import pytest

from consilium.shared.study.definition import Study, parse_study

wfdb = pytest.importorskip("wfdb")

STUDY = """
name = "heart"
title = "Beats beside the usual ones"
rounds = 1
sites = ["a", "b", "c"]
[data]
source = "waveforms"
clock = "position"
rate_hz = 100
label = "aami"
window_h = 60
minimum_patients = 1
[data.derived]
unlike = { kind = "deviation", of = "MLII", unit = "mV" }
alike = { kind = "normalised", of = "MLII" }
peak = { kind = "deviation", of = "MLII", from_s = -0.02, until_s = 0.02 }
slow = { kind = "band-power", of = "V1", unit = "mV", low_hz = 5, high_hz = 30 }
[task]
kind = "multiclass"
outputs = 5
[training]
local_steps = 1
[variables]
unlike = { unit = "mV", low = -12, high = 12, center = 0, spread = 0.2 }
alike = { unit = "1", low = -50, high = 50, center = 0, spread = 1 }
peak = { unit = "mV", low = -12, high = 12, center = 0, spread = 0.2, role = "static" }
slow = { unit = "mV2", low = 0, high = 100, center = 0, spread = 0.1, role = "static" }
rr_mean = { unit = "s", low = 0.1, high = 5, center = 0.8, spread = 0.25, role = "static" }
rr_before_ratio = { unit = "1", low = 0.1, high = 8, center = 1, spread = 0.15, role = "static" }
rr_after_usual = { unit = "1", low = 0.1, high = 8, center = 1, spread = 0.15, role = "static" }
"""


def heart_study(*replacements: tuple[str, str]) -> Study:
    """The study of this file, with text replaced."""
    text = STUDY
    for old, new in replacements:
        assert old in text
        text = text.replace(old, new)
    return parse_study(text)


def heart(seconds: float, rate: int, beats_s: np.ndarray) -> np.ndarray:
    """Two leads (T, 2) in mV, band-limited: every fifth beat is taller and wider."""
    at = np.arange(round(seconds * rate)) / rate
    leads = np.zeros((len(at), 2))
    for number, beat in enumerate(beats_s):
        tall, wide = (1.6, 0.05) if number % 5 == 4 else (1.0, 0.03)
        leads[:, 0] += tall * np.exp(-(((at - beat) / wide) ** 2))
        leads[:, 1] -= 0.5 * np.exp(-(((at - beat) / wide) ** 2))
    leads[:, 1] += 0.2 * np.sin(2 * np.pi * 10 * at)
    return leads


def beats_every(seconds: float, last_s: float) -> np.ndarray:
    """Times of beats on a grid of 4 ms, a whole sample at 250, 500 and 1000 Hz; some are early."""
    early = np.where(np.arange(int(last_s / seconds)) % 7 == 3, -0.2, 0.0)
    return np.round((seconds * (1 + np.arange(len(early))) + early) / 0.004) * 0.004


def write_heart(
    folder: Path, rate: int, beats_s: np.ndarray, *, leads: tuple[int, ...] = (0, 1),
    seconds: float = 40.0, symbols: list[str] | None = None, flat: bool = False, name: str = "r",
) -> Path:  # fmt: skip
    """Write a record with its beats; ``leads`` is their order."""
    folder.mkdir(parents=True, exist_ok=True)
    wave = heart(seconds, rate, beats_s)[:, list(leads)]
    if flat:
        wave = np.zeros_like(wave)
    names = [("MLII", "V1")[lead] for lead in leads]
    wfdb.wrsamp(
        name, fs=rate, units=["mV"] * len(names), sig_name=names, p_signal=wave,
        fmt=["32"] * len(names), adc_gain=[1e6] * len(names), baseline=[0] * len(names),
        write_dir=str(folder),
    )  # fmt: skip
    if len(beats_s):
        kinds = symbols or ["N", "N", "N", "N", "V"] * len(beats_s)
        places = np.round(beats_s * rate).astype(int)
        wfdb.wrann(name, "atr", places, symbol=kinds[: len(beats_s)], write_dir=str(folder))
    return folder
