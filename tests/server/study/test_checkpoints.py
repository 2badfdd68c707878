"""A checkpoint comes back exactly, and a crash while saving leaves the old one."""

import os
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from consilium.server.study.aggregation import apply, start
from consilium.server.study.checkpoints import (
    FILE_NAME,
    Checkpoint,
    load_checkpoint,
    save_checkpoint,
)
from consilium.server.study.run import RunState
from consilium.shared.errors import SettingsError
from consilium.shared.study.rounds import Aggregation


def checkpoint(rounds: int = 1) -> Checkpoint:
    server = start(np.linspace(-1, 1, 7, dtype=np.float32))
    for number in range(rounds):
        server = apply(server, np.full(7, 0.1 * number), Aggregation(strategy="fedadam"))
    return Checkpoint(
        study_digest=bytes(range(32)),
        run_id=bytes(16),
        state=RunState(
            server=server,
            normalisation=b"\x00\xff",
            next_round=9,
            trained=rounds,
            calibrated=2,
            doubt=(0.25, 0.5),
            evaluated=2,
            edges=b"\x01\x02",
        ),
        history=({"round": 1, "epsilon": 0.25},),
        resting=True,
    )


def test_what_was_saved_comes_back_exactly(tmp_path: Path) -> None:
    saved = checkpoint(3)
    save_checkpoint(tmp_path, saved)
    loaded = load_checkpoint(tmp_path)
    assert loaded is not None
    for name in ("weights_D", "average_D", "momentum_D", "second_moment_D"):
        before, after = getattr(saved.state.server, name), getattr(loaded.state.server, name)
        assert np.array_equal(before, after)
        assert before.dtype == after.dtype
    assert loaded.state.server.steps == 3
    assert (loaded.study_digest, loaded.run_id) == (saved.study_digest, saved.run_id)
    assert (loaded.state.normalisation, loaded.state.next_round) == (b"\x00\xff", 9)
    assert (loaded.state.trained, loaded.state.finished) == (3, False)
    assert (loaded.state.calibrated, loaded.state.doubt) == (2, (0.25, 0.5))
    assert (loaded.state.evaluated, loaded.state.edges) == (2, b"\x01\x02")
    assert loaded.history == saved.history
    assert loaded.resting


def test_a_folder_without_checkpoint_has_none(tmp_path: Path) -> None:
    assert load_checkpoint(tmp_path) is None


def test_a_crash_while_saving_leaves_the_old_checkpoint_and_no_rubbish(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_checkpoint(tmp_path, checkpoint(1))

    def crash(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", crash)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(tmp_path, checkpoint(2))
    monkeypatch.undo()
    loaded = load_checkpoint(tmp_path)
    assert loaded is not None
    assert loaded.state.trained == 1
    assert [path.name for path in tmp_path.iterdir()] == [FILE_NAME]


@pytest.mark.parametrize("keep", [0, 4, 40, 300, -1])
def test_a_truncated_file_is_refused_in_one_sentence(tmp_path: Path, keep: int) -> None:
    save_checkpoint(tmp_path, checkpoint())
    path = tmp_path / FILE_NAME
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(SettingsError, match="is not a readable checkpoint"):
        load_checkpoint(tmp_path)


def test_a_checkpoint_of_another_format_says_so(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, checkpoint())
    path = tmp_path / FILE_NAME
    path.write_bytes(path.read_bytes().replace(b'\\"format\\": 6', b'\\"format\\": 7'))
    with pytest.raises(SettingsError, match="format 7 is not 6"):
        load_checkpoint(tmp_path)


def test_a_checkpoint_with_vectors_that_nobody_needs_is_read_and_goes_on(tmp_path: Path) -> None:
    """Format 3 held them all, whatever the strategy."""
    save_checkpoint(tmp_path, checkpoint(2))
    path = tmp_path / FILE_NAME
    path.write_bytes(path.read_bytes().replace(b'\\"format\\": 6', b'\\"format\\": 3'))
    loaded = load_checkpoint(tmp_path)
    assert loaded is not None
    assert loaded.state.server.momentum_D.size == 7
    after = apply(loaded.state.server, np.ones(7), Aggregation())
    assert np.array_equal(after.weights_D, loaded.state.server.weights_D + np.float32(1))
    assert after.momentum_D.size == 0


def test_any_reader_of_safetensors_reads_it(tmp_path: Path) -> None:
    saved = checkpoint(2)
    save_checkpoint(tmp_path, saved)
    tensors = load_file(tmp_path / FILE_NAME)
    assert np.array_equal(tensors["weights"], saved.state.server.weights_D)
    assert tensors["average"].shape == (0,)
    assert tensors["second_moment"].dtype == np.float64
