"""Guesses about recordings (WFDB, EDF) and images: what is measured, whose each is, the outcome."""

import itertools
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from consilium.client.sources.common.archives import BROKEN_ZIP, BadFileError
from consilium.client.sources.common.tree import files_below, name_below
from consilium.client.sources.recorded import beats, dicom_files, nifti_files, scans
from consilium.client.sources.recorded.edf import Edf
from consilium.client.sources.recorded.prepared import Note
from consilium.client.sources.recorded.record_settings import EdfSettings, WaveformsSettings
from consilium.client.sources.recorded.recording_units import channel_unit, is_voltage
from consilium.client.sources.recorded.recordings import Recording, Recordings
from consilium.client.sources.recorded.volumes import PLAIN, Volume
from consilium.client.sources.recorded.waveforms import Waveforms
from consilium.shared.errors import DataError
from consilium.shared.study.units import is_unit
from consilium.simulations.guesses.record_labels import labels_at
from consilium.simulations.guesses.roles import Choices
from consilium.simulations.guesses.texts import WRITTEN, study_head
from consilium.simulations.guesses.toml_text import key_text, line, remark, value_text

RECORDINGS = ("waveforms", "edf")
IMAGES = "image-slices"
MOST_CHANNELS, MOST_STEPS, GRID = 8, 512, 4
MOST_CLASSES = 10
_LOOKED, _SAMPLED = 40, 3  # records whose header is read, and whose samples are
_USUAL_S = 30.0  # of a window, as in polysomnography


@dataclass(frozen=True, kw_only=True)
class _Outcome:
    """What is predicted: the label, and the lines of task and settings that say so."""

    label: str
    why: str
    task: list[str]
    settings: list[str]
    window_s: float | None = None


def signals_texts(path: Path, source: str, name: str, choices: Choices) -> tuple[str, str]:
    """Return the study and the settings of a folder of recordings.

    Raises:
        DataError: none can be read, they have no channel in common, or nothing says an outcome.
        SettingsError: several columns of a table could be the outcome.
    """
    reader: Recordings
    if source == "edf":
        reader = Edf(EdfSettings(source="edf", path=path))
    else:
        reader = Waveforms(WaveformsSettings(source="waveforms", path=path))
    found: list[Recording] = []
    names: list[str] = []
    faults: list[str] = []
    for record, loaded in reader.first_records(_LOOKED):
        names.append(record)
        if isinstance(loaded, Recording):
            found.append(loaded)
        else:
            faults.append(str(loaded))
    if not found:
        raise DataError(faults[0] if faults else f"{path}: holds no record")
    channels = _channels(found, path)
    of_edf = source == "edf"
    outcome = _outcome_of_signals(found, of_edf=of_edf)
    table = labels_at(
        path, [form for one in names for form in _forms(one, reader)], choices,
        needs_label=outcome is None,
    )  # fmt: skip  # reads as one
    if outcome is None and table is not None and table.label is not None:
        outcome = _Outcome(label=table.label, why=table.notes.of("label"), task=table.task(),
                           settings=[])  # fmt: skip  # reads as one
    if outcome is None:
        raise DataError(
            f"{path}: no table, annotation or comment says an outcome; put a table with the "
            "columns record, patient and label beside the records"
        )
    rate = min(next(c for c in one.channels if c.name == name).rate_hz
               for one in found for name, _ in channels if _has(one, name))  # fmt: skip
    shortest = min(min(c.samples / c.rate_hz for c in one.channels) for one in found)
    window_s = outcome.window_s or min(_USUAL_S, shortest)
    rate = min(rate, MOST_STEPS / window_s)
    rate = float(f"{rate:.3g}") if rate < 1 else float(max(1, int(rate)))
    steps = max(1, round(window_s * rate))
    persons = {one.person for one in found}
    named = (table is not None and table.person is not None) or all(persons)
    data = [
        f'source = "{source}"',
        'clock = "position"  # samples have no hours',
        line("rate_hz", rate, "# guess: the slowest channel's, or less so that windows are short"),
        line("label", outcome.label, outcome.why),
        line("window_h", steps, f"# guess: samples, {window_s:g} seconds"),
    ]
    lines = study_head(name, f"To predict {outcome.label}", persons=max(3, len(names)), data=data,
                       task=outcome.task)  # fmt: skip  # reads as one
    if not named:
        _by_recording(lines)
    lines.append("[variables]")
    for channel, unit in channels:
        lines.append(f"{key_text(channel)} = {_signal(found, channel, unit)}")
    if outcome.label == "aami":
        lines.append('rr_before_ratio = { unit = "1", low = 0.1, high = 8, center = 1, '
                     'spread = 0.15, scale = "log", role = "static" }')  # fmt: skip
    records = [
        remark(WRITTEN),
        *(remark(f"not read: {fault}") for fault in faults[:5]),
        "[data]",
        line("source", source, "# guess: by the files"),
        line("path", str(path)),
    ]
    if not named:
        records.append(remark("asked: which records are of one person? same_person = "
                              '[["record-1", "record-2"]]; the study protects recordings until '
                              "then"))  # fmt: skip  # reads as one
    records += [*(table.settings() if table else []), *outcome.settings, *_test()]
    return "\n".join(lines) + "\n", "\n".join(records) + "\n"


def _forms(record: str, reader: Recordings) -> list[str]:
    short = record.rpartition("/")[2]
    return [form for one in (record, short) for form in (one, f"{one}{reader._suffix}")]


def _has(one: Recording, name: str) -> bool:
    return any(channel.name == name for channel in one.channels)


def _channels(found: Sequence[Recording], path: Path) -> list[tuple[str, str]]:
    """Return the names and units of the channels that most records have once, in one unit."""
    counted: Counter[tuple[str, str]] = Counter()
    for one in found:
        names = Counter(channel.name for channel in one.channels)
        counted.update({(c.name, channel_unit(c.unit)) for c in one.channels if names[c.name] == 1})
    common = [
        (name, unit)
        for (name, unit), number in counted.most_common()
        if number >= 0.8 * len(found) and is_unit(unit)
    ]
    if not common:
        told = ", ".join(f"{name!r} in {unit or 'no unit'}" for (name, unit), _ in
                         counted.most_common(5))  # fmt: skip  # reads as one
        raise DataError(
            f"{path}: no channel is in most records in a unit that is known; there are {told}: "
            "write the files by hand as docs/data/edf.md shows, with signal and unit"
        )
    return common[:MOST_CHANNELS]


def _signal(found: Sequence[Recording], channel: str, unit: str) -> str:
    """Return a channel's declaration from the samples of a few records."""
    pieces = []
    for one in [one for one in found if _has(one, channel)][:_SAMPLED]:
        at = next(n for n, c in enumerate(one.channels) if c.name == channel)
        samples = one.read(at)
        samples = samples[np.isfinite(samples)]
        if len(samples):
            pieces.append(samples - np.median(samples) if is_voltage(unit) else samples)
    values = np.concatenate(pieces) if pieces else np.zeros(1)
    return _declared(values, unit)


def _declared(values: NDArray[np.float64], unit: str) -> str:
    low, high = float(values.min()), float(values.max())
    spread = float(values.std()) or 1.0
    width = (high - low) or 1.0
    center = 0.0 if unit != PLAIN and is_voltage(unit) else float(np.median(values))
    told: dict[str, object] = {
        "unit": unit,
        "low": _whole(low - width),
        "high": _whole(high + width),
    }
    told |= {"center": float(f"{center:.3g}"), "spread": float(f"{spread:.3g}")}
    return f"{value_text(told)}  # guess: of a few of these records"


def _whole(value: float) -> float:
    return float(f"{value:.2g}")


def _outcome_of_signals(found: Sequence[Recording], *, of_edf: bool) -> _Outcome | None:
    """Return the outcome that annotations or comments say, None if they say none."""
    every: list[tuple[Note, ...]] = []
    for one in found[:10]:
        try:
            every.append(one.notes(None))
        except DataError:
            continue
    texts = Counter(note.text.strip() for notes in every for note in notes)
    texts.pop("", None)
    if not of_edf and sum(texts[one] for one in beats.CLASS_OF) > 10 * len(every) > 0:
        return _Outcome(label="aami", why="# guess: annotations are of heart beats",
                        task=['kind = "multiclass"', "outputs = 5  # N, S, V, F, Q"], settings=[],
                        window_s=0.7)  # fmt: skip  # reads as one
    classes = sorted(text for text, number in texts.items() if number >= max(2, len(every) // 2))
    lengths = [n.duration_s for notes in every for n in notes if n.duration_s > 0]
    if of_edf and 2 <= len(classes) <= MOST_CLASSES:
        kind = "binary" if len(classes) == 2 else "multiclass"
        task = [line("kind", kind, "# guess: so many kinds of annotations")]
        task += [] if kind == "binary" else [line("outputs", len(classes))]
        values = {text: number for number, text in enumerate(classes)}
        told = line("values", values, "# guess: a number for each; leave out what is none")
        settings = ["", "[data.annotations]", told]
        window = min([_USUAL_S, *lengths])
        return _Outcome(label="annotation", why="# guess: a name for what annotations say",
                        task=task, settings=settings, window_s=window)  # fmt: skip
    codes = Counter(
        code.strip() for one in found for code in one.comments.get("dx", "").split(",") if code
    )
    usual = [code for code, number in codes.most_common() if 0 < number < len(found)]
    if usual:
        told = line("codes", [[usual[0]]], f"# guess: of {', '.join(list(codes)[:8])}")
        settings = ["", "[data.comments]", 'label = "Dx"', told]
        return _Outcome(label="Dx", why="# guess: the headers' comment", task=['kind = "binary"'],
                        settings=settings)  # fmt: skip  # reads as one
    return None


def images_texts(path: Path, source: str, name: str, choices: Choices) -> tuple[str, str]:
    """Return the study and the settings of a folder of images, or of an ``.npz`` of volumes.

    Raises:
        DataError: none can be read, or no table says an outcome.
        SettingsError: several columns of a table could be the outcome.
    """
    if path.is_file():
        return _arrays(path, name)
    names, persons, reads = _images(path)
    table = labels_at(path, names, choices, needs_label=True)
    if table is None or table.label is None:
        raise DataError(
            f"{path}: no table says the outcome of the images; write labels.csv into the folder, "
            "with the columns folder (or file), patient and label"
        )
    volumes = list(itertools.islice(_volumes(reads), _SAMPLED))
    if not volumes:
        raise DataError(f"{path}: none of the first images can be read; docs/data/images.md")
    named = persons or table.person is not None
    steps = min(16, max(1, int(np.median([one.shape[0] for one in volumes]))))
    lines = _images_study(name, table.label, table.notes.of("label"), table.task(), steps,
                          volumes, max(3, len(table.look.frame)), named=named)  # fmt: skip
    records = [remark(WRITTEN), "[data]",
               line("source", source, "# guess: by the files"), line("path", str(path)),
               *table.settings(), *_test()]  # fmt: skip  # reads as the file
    return "\n".join(lines) + "\n", "\n".join(records) + "\n"


def _images_study(
    name: str, label: str, why: str, task: list[str], steps: int, volumes: Sequence[Volume],
    number: int, *, named: bool,
) -> list[str]:  # fmt: skip  # reads as one
    data = [f'source = "{IMAGES}"', 'clock = "position"  # slices have no hours',
            line("label", label, why),
            line("window_h", steps, "# guess: slices, taken at even distances")]  # fmt: skip
    lines = study_head(name, f"To predict {label}", persons=number, data=data, task=task)
    if not named:
        _by_recording(lines)
    values = np.concatenate([np.asarray(one.slice(n), dtype=np.float64).ravel()
                             for one in volumes for n in range(one.shape[0])])  # fmt: skip
    values = values[np.isfinite(values)]
    declared = _declared(values if len(values) else np.zeros(1), volumes[0].unit)
    lines.append("[variables]")
    lines += [f"cell-{row}-{column}-of-{GRID} = {declared}"
              for row in range(GRID) for column in range(GRID)]  # fmt: skip
    return lines


def _images(folder: Path) -> tuple[list[str], bool, list[Any]]:
    """Return the names by which a table may call images, whether they name persons, and readers."""
    files = files_below(folder)
    nifti = [one for one in files if one.name.lower().endswith(nifti_files.SUFFIXES)]
    pictures = [one for one in files if one.suffix.lower() in scans.PICTURES]
    names: set[str] = set()
    if nifti:
        for one in nifti:
            names |= _keys(one, folder)
        return sorted(names), False, [partial(nifti_files.nifti_volume, f, "axial") for f in nifti]
    of: dict[tuple[str, ...], list[dicom_files.Image]] = {}
    for one in files[:2000]:
        try:
            images = dicom_files.images_of(one) or ()
        except BadFileError:
            continue
        for image in images:
            of.setdefault((image.person, image.study, *image.series), []).append(image)
            names |= {image.series[0], image.study, image.accession, image.written}
            names |= _keys(one, folder)
    if of:
        reads = [partial(_dicom_volume, several) for several in of.values()]
        return sorted(names - {""}), all(key[0] for key in of), reads
    for one in pictures:
        names |= _keys(one, folder)
    return sorted(names), False, [partial(scans._picture_volume, (one,)) for one in pictures]


def _keys(file: Path, folder: Path) -> set[str]:
    relative, stem = file.relative_to(folder), name_below(file, folder)
    above = [part for one in relative.parents if one.name for part in (one.as_posix(), one.name)]
    return {relative.as_posix(), stem, file.name, stem.rpartition("/")[2], *above}


def _dicom_volume(images: list[dicom_files.Image]) -> Volume:
    series = next(iter(dicom_files.series_of(images)))
    return dicom_files.volume_of(series, "axial", windowed=False)


def _volumes(reads: Sequence[Any]) -> Iterator[Volume]:
    for read in reads[:_LOOKED]:
        try:
            yield read()
        except BadFileError:
            continue


def _arrays(path: Path, name: str) -> tuple[str, str]:
    try:
        with zipfile.ZipFile(path) as archive:
            splits = [n.removesuffix("_images.npy") for n in archive.namelist()
                      if n.endswith("_images.npy")]  # fmt: skip
            split = "train" if "train" in splits else splits[0]
            with archive.open(f"{split}_labels.npy") as file:
                labels = npy.read_array(file, allow_pickle=False).reshape(-1)
            with archive.open(f"{split}_images.npy") as file:
                voxels = npy.read_array(file, allow_pickle=False)
    except (*BROKEN_ZIP, KeyError, ValueError, IndexError, OSError) as error:
        raise DataError(
            f"{path}: is damaged, or has no arrays NAME_images and NAME_labels of volumes"
        ) from error
    if voxels.ndim != 4 or voxels.dtype != np.uint8 or not len(labels):
        raise DataError(
            f"{path}: {split}_images are not bytes of four axes (volumes, slices, rows, columns)"
        )
    kinds = len(np.unique(labels))
    task = ['kind = "binary"'] if kinds <= 2 else ['kind = "multiclass"', f"outputs = {kinds}"]
    volumes = [Volume(one.shape, PLAIN, partial(_share, one)) for one in voxels[:_SAMPLED]]
    lines = _images_study(name, "label", "# as arrays call it", task, min(16, voxels.shape[1]),
                          volumes, len(labels), named=False)  # fmt: skip
    records = [remark(WRITTEN), "[data]", line("source", IMAGES, "# guess: by the file"),
               line("path", str(path)), line("split", split), *_test()]  # fmt: skip
    return "\n".join(lines) + "\n", "\n".join(records) + "\n"


def _share(voxels: NDArray[np.uint8], place: int) -> NDArray[np.float64]:
    return np.asarray(voxels[place] / 255.0, dtype=np.float64)


def _by_recording(lines: list[str]) -> None:
    at = lines.index("[privacy]") + 1
    lines.insert(at, 'unit = "recording"  # guess: nothing here says whose a record is')


def _test() -> list[str]:
    return ["", "[test]", line("fraction", 0.2, "# guess: a fifth of the persons")]
