"""Variables of a recording's windows: the usual beat, bands of frequencies, and refusals."""

from pathlib import Path

import numpy as np
import pytest

from consilium.client.records.features import TimeGrid, to_grid
from consilium.client.sources.recorded.derived_windows import Derivation
from consilium.client.sources.recorded.waveforms import Waveforms
from consilium.client.sources.registry import open_source, read_data_settings
from consilium.shared.errors import DataError, SettingsError
from consilium.shared.study.definition import Study, parse_study
from tests.client.sources.recorded.edf_maker import write_edf
from tests.client.sources.recorded.heart import beats_every, heart, heart_study, write_heart

BEATS_S = beats_every(0.8, 36.0)


def grid_of(folder: Path, study: Study, **options: object) -> TimeGrid:
    return to_grid(Waveforms(folder, same_person=(), **options).read_patients(study), study)


def column(grid: TimeGrid, study: Study, name: str) -> np.ndarray:
    """(N, T) of a series, (N,) of a static variable."""
    value_NT = grid.value_NTV[:, :, list(study.variables).index(name)].astype(float)
    return value_NT if study.variables[name].role == "series" else value_NT[:, 0]


@pytest.mark.parametrize("reference", ["running", "recording"])
def test_a_beat_is_compared_with_the_usual_one_of_its_heart(reference: str, tmp_path: Path) -> None:
    study = heart_study(('of = "MLII"', f'of = "MLII", reference = "{reference}"'))
    grid = grid_of(write_heart(tmp_path, 100, BEATS_S), study)
    signal = heart(40.0, 100, BEATS_S)[:, 0]
    starts = np.round(BEATS_S * 100).astype(int)[1:-1] - 24
    window_NT = np.stack([signal[start : start + 60] for start in starts])
    window_NT -= np.median(window_NT, axis=1, keepdims=True)
    for number in (1, 5, 40):
        some = window_NT[max(0, number - 31) : number + 1] if reference == "running" else window_NT
        unlike = window_NT[number] - np.median(some, axis=0)
        size = np.median(np.sqrt((some**2).mean(axis=1)))
        assert column(grid, study, "unlike")[number] == pytest.approx(unlike, abs=1e-4)
        assert column(grid, study, "alike")[number] == pytest.approx(
            window_NT[number] / size, abs=1e-3
        )
        assert column(grid, study, "peak")[number] == pytest.approx(unlike[22:26].mean(), abs=1e-4)
    first = column(grid, study, "unlike")[0]
    assert np.isnan(first).all() == (reference == "running")  # it has no other beside it


def test_thinned_beats_count_for_what_is_usual(tmp_path: Path) -> None:
    study = heart_study()
    write_heart(tmp_path, 100, BEATS_S)
    whole, thin = grid_of(tmp_path, study), grid_of(tmp_path, study, thin_normal=3)
    assert 0 < len(thin.y_N) < len(whole.y_N)
    unlike = {one.tobytes() for one in column(whole, study, "unlike")}
    assert {one.tobytes() for one in column(thin, study, "unlike")} <= unlike


@pytest.mark.sampled(2)
@pytest.mark.parametrize("rate", [250, 360, 500, 1000])
def test_any_rate_and_order_of_leads_gives_the_same(rate: int, tmp_path: Path) -> None:
    study = heart_study()
    one = grid_of(write_heart(tmp_path / "one", rate, BEATS_S), study)
    other = grid_of(write_heart(tmp_path / "other", 250, BEATS_S, leads=(1, 0)), study)
    for name in study.variables:
        near = 2e-2 if study.variables[name].role == "series" or name == "peak" else 5e-3
        if name.startswith("rr_"):
            near = 0.02  # beats stand at whole samples
        assert column(one, study, name)[2:] == pytest.approx(
            column(other, study, name)[2:], abs=near, nan_ok=True
        ), name
    assert np.array_equal(one.y_N, other.y_N)


@pytest.mark.parametrize(
    ("rate", "unit", "scale"), [(128, "uV", 1), (200, "mV", 1000), (512, "uV", 1)]
)
def test_the_power_of_a_wave_is_half_its_amplitude_squared(
    rate: int, unit: str, scale: int, tmp_path: Path
) -> None:
    study = parse_study(EEG)
    at = np.arange(8 * rate) / rate
    wave = (20 * np.sin(2 * np.pi * 10 * at) + 6 * np.sin(2 * np.pi * 22 * at) + 3) / scale
    write_edf(tmp_path / "p.edf", {"O1": (wave, rate, unit)})
    (tmp_path / "labels.csv").write_text("file,y\np,1\n")
    grid = to_grid(edf(tmp_path, study, labels={"file": str(tmp_path / "labels.csv")}), study)
    inner = slice(1, -1)  # resampling has edges
    assert column(grid, study, "alpha")[inner] == pytest.approx(200, rel=0.02)
    assert column(grid, study, "beta")[inner] == pytest.approx(18, rel=0.05)
    assert column(grid, study, "share")[inner] == pytest.approx(200 / 218, rel=0.01)
    assert (column(grid, study, "delta") < 0.5).all()


EEG = """
name = "eeg"
title = "Bands"
rounds = 1
sites = ["a", "b", "c"]
[data]
source = "edf"
clock = "position"
rate_hz = 128
label = "y"
window_h = 256
minimum_patients = 1
[data.derived]
delta = { kind = "band-power", of = "O1", unit = "uV", low_hz = 1, high_hz = 4 }
alpha = { kind = "band-power", of = "O1", unit = "uV", low_hz = 8, high_hz = 13 }
beta = { kind = "band-power", of = "O1", unit = "uV", low_hz = 13, high_hz = 30 }
share = { kind = "band-power", of = "O1", unit = "uV", low_hz = 8, high_hz = 13, relative = true }
[variables]
delta = { unit = "uV2", low = 0, high = 1e6, center = 10, spread = 1, role = "static" }
alpha = { unit = "uV2", low = 0, high = 1e6, center = 10, spread = 1, role = "static" }
beta = { unit = "uV2", low = 0, high = 1e6, center = 10, spread = 1, role = "static" }
share = { unit = "1", low = 0, high = 1, center = 0.2, spread = 0.2, role = "static" }
"""


def edf(folder: Path, study: Study, **settings: object):
    chosen = read_data_settings(
        {"source": "edf", "path": str(folder)} | settings, where="site.toml", folder=folder
    )
    return open_source(chosen, study).read_patients(study)


def test_a_channel_too_slow_for_a_band_is_refused(tmp_path: Path) -> None:
    study = parse_study(EEG)
    write_edf(tmp_path / "p.edf", {"O1": (np.arange(400.0) % 7, 50, "uV")})
    (tmp_path / "labels.csv").write_text("file,y\np,1\n")
    labels = {"file": str(tmp_path / "labels.csv")}
    with pytest.raises(DataError, match=r"O1 has 50 samples a second, .* above 22.5 Hz, and .* 30"):
        list(edf(tmp_path, study, labels=labels))
    with pytest.raises(SettingsError, match=r"variables.alpha\] is computed from channel 'O1'"):
        list(edf(tmp_path, study, labels=labels, variables={"alpha": {"signal": ["O2"]}}))


def test_beats_of_edf_annotations_are_those_of_wfdb(tmp_path: Path) -> None:
    study = heart_study()
    leads = heart(40.0, 250, BEATS_S)
    notes = [(float(at), 0.0, "PVC" if n % 5 == 4 else "normal") for n, at in enumerate(BEATS_S)]
    channels = {"ECG II": (leads[:, 0], 250, "mV"), "V1": (leads[:, 1], 250, "mV")}
    write_edf(tmp_path / "e" / "r.edf", channels, notes=notes)
    words = {"values": {"normal": 0, "PVC": 2}}
    found = edf(
        tmp_path / "e", study, annotations=words, variables={"MLII": {"signal": ["ECG II"]}}
    )
    grid, other = to_grid(found, study), grid_of(write_heart(tmp_path / "w", 250, BEATS_S), study)
    assert np.array_equal(grid.y_N, other.y_N)
    unlike = [column(one, study, "unlike")[1:] for one in (grid, other)]
    assert unlike[0] == pytest.approx(unlike[1], abs=0.02)  # EDF has 16 bits for 200 mV


def test_few_beats_or_a_flat_line_are_missing_and_no_beats_are_said(tmp_path: Path) -> None:
    study = heart_study()
    source = Waveforms(write_heart(tmp_path / "one", 250, BEATS_S[5:6]), same_person=())
    assert list(source.read_patients(study)) == []  # a single beat has no interval
    assert source.report.set_aside["records without a whole window"] == 1
    three = grid_of(write_heart(tmp_path / "three", 250, BEATS_S[5:8]), study)
    assert len(three.y_N) == 1
    assert np.isnan(column(three, study, "unlike")).all()
    assert np.isfinite(column(three, study, "rr_mean")).all()
    flat = grid_of(write_heart(tmp_path / "flat", 250, BEATS_S, flat=True), study)
    assert (column(flat, study, "unlike")[1:] == 0).all()
    assert np.isnan(column(flat, study, "alike")).all()
    assert np.isnan(column(flat, study, "slow")).all()
    write_heart(tmp_path / "none", 250, BEATS_S[:3], symbols=["+", "+", "+"])
    with pytest.raises(DataError, match=r"record r: none of its annotations is a heart beat, and "):
        grid_of(tmp_path / "none", study)
    (tmp_path / "none" / "r.atr").unlink()
    with pytest.raises(DataError, match=r"annotations r\.atr are not there; .* at each R peak"):
        grid_of(tmp_path / "none", study)


def test_a_lead_that_a_record_lacks_is_named(tmp_path: Path) -> None:
    write_heart(tmp_path, 250, BEATS_S, leads=(0,))
    with pytest.raises(DataError, match="record r: has no signal 'V1' but MLII"):
        grid_of(tmp_path, heart_study())


def test_a_gap_is_missing_and_changes_nothing_else() -> None:
    stream = np.random.default_rng(0)
    pieces = stream.normal(size=(6, 60, 2))
    pieces[1, 10:20] = np.nan
    pieces[2] = np.nan
    pieces[:, 50] = np.nan
    study = heart_study()
    derivation = Derivation(study, ("MLII", "V1"))
    tables = []
    for piece in pieces:
        value_TV = np.full((60, len(study.variables)), np.nan)
        derivation.fill(value_TV, piece)
        tables.append(value_TV)
    unlike_NT = np.stack([value_TV[:, 0] for value_TV in tables])
    assert np.isnan(unlike_NT[1, 10:20]).all()
    assert np.isfinite(unlike_NT[1, :10]).all()
    assert np.isnan(unlike_NT[2]).all()
    assert np.isnan(unlike_NT[:, 50]).all()
    known = pieces[[0, 1, 3], :, 0]
    known = known - np.nanmedian(known, axis=1, keepdims=True)
    usual = np.nanmedian(known[:, :50], axis=0)
    assert unlike_NT[3, :50] == pytest.approx(known[2, :50] - usual)
    assert all(np.isnan(value_TV[0, 3]) for value_TV in tables)  # no power beside a gap
