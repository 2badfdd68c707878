"""A recording as it is made gives the windows of the finished one."""

from pathlib import Path

import numpy as np
import pytest

from consilium.client.sources.recorded.prepared import Window
from consilium.client.sources.recorded.record_windows import windows_of
from consilium.client.sources.recorded.signal_stream import SignalStream
from consilium.client.sources.recorded.waveforms import Waveforms
from consilium.shared.errors import DataError
from consilium.shared.study.definition import Study
from tests.client.sources.recorded.heart import beats_every, heart, heart_study, write_heart
from tests.client.sources.recorded.test_derived_windows import EEG, parse_study

BEATS_S = beats_every(0.5, 37.0)  # more than the 64 whose intervals are kept
UNITS = {"MLII": "mV", "V1": "mV"}


def streamed(study: Study, rate: int, seconds: float, pieces: list[int]) -> list[Window]:
    leads = heart(seconds, rate, BEATS_S)
    stream = SignalStream(study, rate_hz=rate, units=UNITS)
    found, place, number = [], 0, 0
    while place < len(leads):
        until = place + pieces[number % len(pieces)]
        beats = BEATS_S[(place / rate <= BEATS_S) & (until / rate > BEATS_S)]
        part = leads[place:until]
        found += stream.add({"MLII": part[:, 0], "V1": part[:, 1]}, beats)
        place, number = until, number + 1
    return found + stream.end()


@pytest.mark.sampled(1)
@pytest.mark.parametrize(
    ("rate", "pieces"),
    [(250, [1000]), (360, [37, 999]), (500, [500, 1]), (1000, [4001]), (100, [73])],
)
def test_a_stream_gives_the_windows_of_the_finished_record(
    rate: int, pieces: list[int], tmp_path: Path
) -> None:
    study = heart_study()
    write_heart(tmp_path, rate, BEATS_S, seconds=40.0)
    source = Waveforms(tmp_path, same_person=())
    source._check(study)
    listed = source._listed(tmp_path, None)[0]
    prepared = source._prepared(listed, study)
    assert prepared is not None
    batch, stream = (
        windows_of(prepared, study, source._settings, source._tally),
        streamed(study, rate, 40.0, pieces),
    )
    assert [window.start for window in stream] == [window.start for window in batch]
    assert len(batch) > 66
    for one, other in zip(stream, batch, strict=True):
        # the file has 1e-6 mV a unit, and its record's median was subtracted
        assert np.allclose(one.value_TV, other.value_TV, rtol=0, atol=1e-5, equal_nan=True)


def test_windows_come_as_soon_as_the_next_beat_is_known() -> None:
    stream = SignalStream(heart_study(), rate_hz=250, units=UNITS)
    leads = heart(10.0, 250, BEATS_S)
    seen = []
    for second in range(10):
        part, beats = (
            leads[250 * second : 250 * (second + 1)],
            BEATS_S[BEATS_S.astype(int) == second],
        )
        seen.append(len(stream.add({"MLII": part[:, 0], "V1": part[:, 1]}, beats)))
    assert sum(seen) >= len(BEATS_S[BEATS_S < 10]) - 3
    assert seen[3] > 0


def test_consecutive_windows_stream_too() -> None:
    study = parse_study(EEG)
    stream = SignalStream(study, rate_hz=256, units={"O1": "mV"})
    wave = 0.02 * np.sin(2 * np.pi * 10 * np.arange(256 * 8) / 256)
    found = [
        window for n in range(8) for window in stream.add({"O1": wave[256 * n : 256 * (n + 1)]})
    ]
    found += stream.end()
    assert [window.start for window in found] == [0, 256, 512, 768]
    alpha = [window.value_TV[0, 1] for window in found]
    assert alpha[1:3] == pytest.approx([200, 200], rel=0.02)


def test_what_needs_the_finished_recording_is_refused() -> None:
    whole = heart_study(('of = "MLII", unit', 'of = "MLII", reference = "recording", unit'))
    with pytest.raises(DataError, match=r"variable unlike compares a window with all of its rec"):
        SignalStream(whole, rate_hz=250, units=UNITS)
    raw = heart_study(
        (
            "[variables]",
            '[variables]\nMLII = { unit = "mV", low = -6, high = 6, center = 0, spread = 1 }',
        )
    )
    with pytest.raises(DataError, match="variable MLII is less the median of the whole recording"):
        SignalStream(raw, rate_hz=250, units=UNITS)


def test_what_cannot_be_used_is_said_and_changes_nothing() -> None:
    study = heart_study()
    for units, told in (({"MLII": "mV"}, "'V1' has no unit"), (UNITS | {"V1": "mm[Hg]"}, "'V1'")):
        with pytest.raises(DataError, match=told):
            SignalStream(study, rate_hz=250, units=units)
    with pytest.raises(DataError, match="rate_hz 0 must lie within 1 and"):
        SignalStream(study, rate_hz=0, units=UNITS)
    stream = SignalStream(study, rate_hz=100, units=UNITS)
    some = {"MLII": [0.0] * 100, "V1": [0.0] * 100}
    for samples, beats, told in (
        ({"MLII": [0.0]}, [], "lack channel 'V1'"),
        ({"MLII": [0.0], "V1": [0.0, 1.0]}, [], "as many of every channel"),
        ({"MLII": [0.0], "V1": [float("nan")]}, [], "at a gap, end the recording"),
        (some, [0.5, 0.4], "in the order of time"),
        (some, [-1.0], "in the order of time"),
        (some, ["x"], "in the order of time"),
    ):
        with pytest.raises(DataError, match=told):
            stream.add(samples, beats)
    assert stream.add(some, [0.5]) == []
    with pytest.raises(DataError, match="in the order of time"):
        stream.add(some, [0.5])
    for _ in range(80):
        stream.add(some)
    with pytest.raises(DataError, match="within 60 s of their samples"):
        stream.add(some, [1.0])
