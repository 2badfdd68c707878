"""A run's rounds as CSV and as TensorBoard's events: every figure, at its round, once."""

import builtins
import csv
import io
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tensorboardX.proto.event_pb2 import Event

from consilium.shared.errors import SettingsError
from consilium.simulations.report.records import write_json
from consilium.simulations.report.rounds_export import (
    figures,
    read_rounds,
    to_csv,
    write_tensorboard,
)
from tests.simulations.report.made_up import demo_study, one_round, record_of

VALIDATION = {
    "patients": 70.0,
    "loss": 0.4,
    "outputs": [{"auroc": 0.7, "auprc": 0.2, "brier": 0.1}, None,
                {"auroc": 0.9, "auprc": 0.4, "brier": 0.3}],
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    study = demo_study()
    statistics = one_round(0, study) | {"purpose": "statistics", "test": None}
    record = record_of(study, groups=[], other_rounds=[statistics])
    record["rounds"][1]["validation"] = VALIDATION
    record["rounds"][3]["update_norm"] = None
    write_json(tmp_path / "run.json", record)
    return tmp_path


def events(folder: Path) -> Iterator[Event]:
    """Read the records of an event file: length, checksum, event, checksum."""
    (file,) = folder.glob("events.out.tfevents.*")
    content, at = file.read_bytes(), 0
    while at < len(content):
        (length,) = struct.unpack_from("<Q", content, at)
        yield Event.FromString(content[at + 12 : at + 12 + length])
        at += 16 + length


def test_a_line_a_round_with_empty_cells_where_a_figure_is_missing(folder: Path) -> None:
    lines = list(csv.DictReader(io.StringIO(to_csv(read_rounds(folder)))))
    assert [line["round"] for line in lines] == ["0", "1", "2", "3", "4"]
    assert [line["purpose"] for line in lines] == ["statistics", *["training"] * 4]
    assert [line["void"] for line in lines] == ["0", "0", "0", "1", "0"]
    assert lines[0]["test/auroc"] == ""
    assert float(lines[1]["test/auroc"]) == pytest.approx(0.65)
    assert [float(line["validation/auroc"] or 0) for line in lines] == [0, 0, 0.8, 0, 0]
    assert lines[4]["update_norm"] == ""
    assert lines[2]["bytes_up_per_site"] == "65000"


def test_tensorboard_gets_every_figure_once_at_its_round_and_time(
    folder: Path, tmp_path: Path
) -> None:
    rounds = read_rounds(folder)
    count = write_tensorboard(rounds, tmp_path / "events")
    scalars = {
        (value.tag, event.step): (value.simple_value, event.wall_time)
        for event in events(tmp_path / "events")
        for value in event.summary.value
    }
    expected = {(n, r["round"]): v for r in rounds for n, v in figures(r).items()}
    assert len(scalars) == count == len(expected)
    for key, value in expected.items():
        assert scalars[key][0] == pytest.approx(value, rel=1e-6)
    assert scalars["seconds", 2][1] == pytest.approx(0.5 + 0.6 + 0.7)  # as simulated round by round
    with pytest.raises(SettingsError, match="holds events already"):
        write_tensorboard(rounds, tmp_path / "events")


def test_a_coordinators_rounds_are_read_too(folder: Path, tmp_path: Path) -> None:
    lines = tmp_path / "rounds.jsonl"
    lines.write_text("".join(json.dumps(r) + "\n" for r in read_rounds(folder)))
    assert to_csv(read_rounds(lines)) == to_csv(read_rounds(folder))


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        '{"rounds": 3, "other_rounds": 1}',
        '{"rounds": [{"round": 1, "purpose": "training"}], "other_rounds": []}',
    ],
)
def test_what_holds_no_rounds_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(SettingsError, match="holds no rounds of a run"):
        read_rounds(tmp_path)
    with pytest.raises(SettingsError, match="cannot be read"):
        read_rounds(tmp_path / "nowhere")


def test_without_the_writer_the_command_says_how_to_get_it(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def absent(name: str, *rest: Any) -> Any:
        if name == "tensorboardX":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(SettingsError, match=r"pip install 'consilium-fl\[tensorboard\]'"):
        write_tensorboard(read_rounds(folder), tmp_path / "events")
