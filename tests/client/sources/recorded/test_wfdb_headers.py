"""Headers of every kind that the wfdb package reads are read alike; others are refused by cause."""

import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from consilium.client.sources.recorded.record_settings import WaveformsSettings
from consilium.client.sources.recorded.waveforms import Waveforms
from consilium.client.sources.recorded.wfdb_headers import comments_of
from consilium.shared.errors import DataError

wfdb = pytest.importorskip("wfdb")

SAMPLES = 600
RNG = np.random.default_rng(14)
WAVE = RNG.integers(-400, 400, SAMPLES)
RAW = WAVE.astype("<i2").tobytes()
ONE = "r.dat 16 200/mV 16 0 0 0 0 MLII\n"
PRESSURE = "r.dat 16 100/mmHg 16 0 0 0 0 ABP\n"


def packed(kind: str) -> bytes:
    """The wave in a format that the package does not write."""
    three = (WAVE & 0x3FF).reshape(-1, 3).astype("u4")
    if kind == "310":
        low = (three[:, 0] << 1) | ((three[:, 2] & 0x1F) << 11)
        high = (three[:, 1] << 1) | ((three[:, 2] & 0x3E0) << 6)
        return np.stack([low, high], 1).astype("<u2").tobytes()
    if kind == "311":
        return (three[:, 0] | (three[:, 1] << 10) | (three[:, 2] << 20)).astype("<u4").tobytes()
    if kind == "8":
        return np.diff(WAVE.clip(-60, 60), prepend=0).astype("i1").tobytes()
    return {"61": WAVE.astype(">i2"), "160": (WAVE + 32768).astype("<u2")}[kind].tobytes()


ALONE = {  # a header, and the bytes of r.dat
    "plain": (f"r 1 250 {SAMPLES}\n{ONE}", RAW),
    "no number of samples": (f"r 1 250\n{ONE}", RAW),
    "no rate": (f"r 1\n{ONE}", RAW),
    "nothing but the file": (f"r 1 250 {SAMPLES}\nr.dat 16\n", RAW),
    "signals without names": ("r 2 250 300\nr.dat 16 200\nr.dat 16 200\n", RAW),
    "skew": (f"r 2 250 300\n{ONE}r.dat 16:3 200 16 0 0 0 0 V5\n", RAW),
    "a prolog": (f"r 1 250 590\n{ONE.replace('16 ', '16+20 ', 1)}", RAW),
    "frames of several samples": (f"r 2 50 100\n{ONE.replace('16 ', '16x5 ', 1)}{PRESSURE}", RAW),
    "date, clock and baseline": (
        f"r 1 250/1000(0) {SAMPLES} 16:13:00 24/04/1989\nr.dat 16 200(10)/mV 12 5 1 0 0 MLII\n",
        RAW,
    ),
    "a wrong checksum": (f"r 1 250 {SAMPLES}\nr.dat 16 200/mV 16 0 1 12345 0 MLII\n", RAW),
    "no gain": (f"r 1 250 {SAMPLES}\nr.dat 16 0 16 0 0 0 0 MLII\n", RAW),
    "a name twice": (f"r 2 250 300\n{ONE}{ONE}", RAW),
    "lines of Windows": (f"r 1 250 {SAMPLES}\n{ONE}".replace("\n", "\r\n"), RAW),
    "tabs": (f"r 1 250 {SAMPLES}\n{ONE}".replace(" ", "\t"), RAW),
    "comments anywhere": (f"# a\n\nr 1 250 {SAMPLES}\n# b\n{ONE}#<age>: 40 <sex>: F\n", RAW),
    "a name with blanks": (f"r 1 250 {SAMPLES}\n{ONE.replace('MLII', 'EEG Fpz-Cz')}", RAW),
    "letters of Latin-1": (f"r 1 250 {SAMPLES}\n{ONE}# Gerät: Ä\n", RAW),
    **{
        f"format {kind}": (
            f"r 1 250 {SAMPLES}\nr.dat {kind} 200/mV 10 0 0 0 0 MLII\n",
            packed(kind),
        )
        for kind in ("8", "61", "160", "310", "311")
    },
}
WRITTEN = ("16", "24", "32", "80", "212", "508", "516", "524")


def loaded(folder: Path, name: str = "r") -> tuple[list[np.ndarray], list[str]]:
    source = Waveforms(WaveformsSettings(source="waveforms", path=folder))
    recording = source._load(name, folder / f"{name}.hea")
    signals = [recording.read(number) for number in range(len(recording.channels))]
    return signals, [channel.name for channel in recording.channels]


@pytest.mark.filterwarnings("ignore")
def as_the_package_reads(folder: Path, name: str = "r") -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = wfdb.rdrecord(str(folder / name), smooth_frames=False)
        theirs = found.e_p_signal
        if theirs is None:
            theirs = list(wfdb.rdrecord(str(folder / name)).p_signal.T)
        ours, names = loaded(folder, name)
    assert len(ours) == len(theirs)
    for own, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(own, other)
    assert names == [n or f"signal {at}" for at, n in enumerate(found.sig_name)]


@pytest.mark.parametrize("kind", ALONE)
def test_a_record_is_read_as_the_package_reads_it(kind: str, tmp_path: Path) -> None:
    text, content = ALONE[kind]
    (tmp_path / "r.hea").write_bytes(text.encode("latin-1"))
    (tmp_path / "r.dat").write_bytes(content)
    as_the_package_reads(tmp_path)


@pytest.mark.parametrize("kind", WRITTEN)
def test_formats_that_the_package_writes_are_read(kind: str, tmp_path: Path) -> None:
    wave = WAVE.clip(-100, 100)[:, None]
    wfdb.wrsamp("r", fs=250, units=["mV"], sig_name=["MLII"], d_signal=wave, fmt=[kind],
                adc_gain=[200.0], baseline=[0], write_dir=str(tmp_path))  # fmt: skip
    as_the_package_reads(tmp_path)
    assert loaded(tmp_path)[0][0] == pytest.approx(wave[:, 0] / 200)


def segment(folder: Path, name: str, samples: int, *, pressure: bool = False) -> None:
    lines = [ONE, PRESSURE] if pressure else [ONE]
    text = "".join(line.replace("r.dat", f"{name}.dat") for line in lines)
    (folder / f"{name}.hea").write_text(f"{name} {len(lines)} 250 {samples}\n{text}")
    (folder / f"{name}.dat").write_bytes(RAW)


def layout(folder: Path) -> None:
    lines = (ONE + PRESSURE).replace("r.dat 16", "~ 0")
    (folder / "s_layout.hea").write_text(f"s_layout 2 250 0\n{lines}")


SEGMENTS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "of one layout": ("r/2 1 250 500\ns1 200\ns2 300\n", lambda f: segment(f, "s2", 300)),
    "with a gap": ("r/4 2 250 600\ns_layout 0\ns1 200\n~ 100\ns2 300\n",
                   lambda f: (layout(f), segment(f, "s2", 300, pressure=True))),
    "with a signal that none has": ("r/2 2 250 200\ns_layout 0\ns1 200\n", layout),
}  # fmt: skip  # reads as a table


@pytest.mark.parametrize("kind", SEGMENTS)
def test_a_record_of_segments_is_read_as_the_package_reads_it(kind: str, tmp_path: Path) -> None:
    text, rest = SEGMENTS[kind]
    (tmp_path / "r.hea").write_text(text)
    segment(tmp_path, "s1", 200)
    rest(tmp_path)
    as_the_package_reads(tmp_path)
    source = Waveforms(WaveformsSettings(source="waveforms", path=tmp_path))
    assert list(source._names(tmp_path)) == ["r"]  # segments and layouts are no records


REFUSED = {
    "r 0 250 600\n# only a header\n": "names no signal; leave it out",
    f"r 1 250 700\n{ONE}": "file r.dat is shorter than r.hea says; copy it again",
    f"r 1 250 600\n{ONE.replace('16 ', '99 ', 1)}": "format '99', which is not read; convert",
    f"r 1 250 600\n{ONE.replace('r.dat', 's.dat')}": "file s.dat is not there; add it beside r.hea",
    f"r 1 250 0\n{ONE.replace('r.dat 16', '~ 0')}": "is the layout of a record of segments",
    "r/3 1 250 600\ns1 200\n~ 100\ns1 300\n": "has a gap between its segments and no layout",
    "r/2 1 250 500\ns1 200\ns9 300\n": "file s9.hea is not there",
    "r/2 1 250 500\ns1 200\nr 300\n": "has segments itself",
    "r/2 1 250 500\ns1 200\ns5 500\n": "file s5.dat is shorter than s5.hea says",
    f"r one 250 600\n{ONE}": "compare the header's lines with",
    "": "compare the header's lines with",
    f"r 1 9999999 600\n{ONE}": "a sampling rate outside",
}


@pytest.mark.parametrize("text", REFUSED)
def test_what_cannot_be_read_is_refused_with_its_cause(text: str, tmp_path: Path) -> None:
    (tmp_path / "r.hea").write_text(text)
    (tmp_path / "r.dat").write_bytes(RAW)
    segment(tmp_path, "s1", 200)
    segment(tmp_path, "s5", 1000)
    with pytest.raises(DataError) as refused:
        loaded(tmp_path)
    assert REFUSED[text] in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_zip_has_the_signal_files_that_its_headers_name_whatever_their_endings(
    tmp_path: Path,
) -> None:
    with zipfile.ZipFile(tmp_path / "records.zip", "w") as archive:
        archive.writestr("a/r.hea", f"r 1 250 {SAMPLES}\n{ONE.replace('r.dat', 'R.d0')}")
        archive.writestr("a/R.d0", RAW)
        archive.writestr("a/notes.pdf", b"left alone")
    source = Waveforms(WaveformsSettings(source="waveforms", path=tmp_path / "records.zip"))
    with source._opened() as folder:
        assert {file.name for file in folder.rglob("*.*")} == {"r.hea", "R.d0"}
        ((name, path),) = source._names(folder).items()
        recording = source._load(name, path)
        assert recording.read(0) == pytest.approx(WAVE / 200)


def test_comments_are_found_by_name() -> None:
    header = wfdb.Record(comments=["<age>: 40", "Dx: 1,2", "free text", "dx: later"])
    assert comments_of(header) == {"age": "40", "dx": "1,2"}


@pytest.mark.parametrize(
    ("comments", "said"),
    [
        (["Age: 62  Sex: M"], {"age": "62", "sex": "M"}),  # European ST-T
        (["<age>: 69 <sex>: M <diagnoses>: (none)"],
         {"age": "69", "sex": "M", "diagnoses": "(none)"}),
        (["69 M 1085 1629 x1", "Aldomet, Inderal"], {"age": "69", "sex": "M"}),  # MIT-BIH
        (["24 F 1581 654 x1", "The PVCs are multiform."], {"age": "24", "sex": "F"}),
        (["Age: 30", "69 M 1085 1629 x1"], {"age": "30", "sex": "M"}),
        (["Time:  10:30"], {"time": "10:30"}),
        (["1st diagnosis: mild  note: late"], {"1st diagnosis": "mild", "note": "late"}),
        (["Dx: 426783006,164934002"], {"dx": "426783006,164934002"}),
        (["12 leads", "69 MHz", "1985 M", "69 m"], {}),
        (["", "   ", ":", "<>:"], {}),
    ],
)  # fmt: skip
def test_a_comment_may_say_several_things(comments, said) -> None:
    assert comments_of(wfdb.Record(comments=comments)) == said
