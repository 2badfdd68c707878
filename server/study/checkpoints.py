"""Checkpoints: what a coordinator needs to go on after a crash, saved in one atomic step.

A run that goes on from a checkpoint skips the round that may have begun after it was saved (see
:meth:`consilium.server.study.run.RunState.after_crash`): a failed round is skipped, never retried.
"""

import json
import secrets
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from consilium.server.secure_sum.narrowing import Narrowing
from consilium.server.study.aggregation import ServerState, start
from consilium.server.study.run import RunState
from consilium.shared.errors import SettingsError
from consilium.shared.files.atomic_file import write_atomically
from consilium.shared.files.tensor_file import tensor_file
from consilium.shared.study.definition import Study

FILE_NAME = "checkpoint.safetensors"
FORMAT = 6
READABLE = (3, 4, 5, FORMAT)
# 3 also held vectors nobody needs; 4 knew nothing of garbage's senders, 5 nothing of calibration


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A run between two rounds.

    Attributes:
        study_digest: of the study.
        run_id: the run's identity, which never changes.
        state: weights and counters.
        history: one JSON record for each finished round.
        resting: whether the run was put to rest: no round has begun since, so none is skipped.
    """

    study_digest: bytes
    run_id: bytes
    state: RunState
    history: tuple[dict[str, Any], ...] = ()
    resting: bool = False

    def resumed(self, study: Study) -> "Checkpoint":
        """Return the checkpoint to go on from: past the round that may have begun since."""
        if self.state.finished or self.resting:
            return self
        return replace(self, state=self.state.after_crash(study))


def begin(folder: Path, study: Study) -> Checkpoint:
    """Return a new run of the study, saved before its first round."""
    # PyTorch takes seconds and 200 MiB, which a process that goes on with a study does without.
    from consilium.shared.model.study_model import study_model
    from consilium.shared.model.weight_vector import to_vector

    model = study_model(study)
    begun = Checkpoint(
        study_digest=study.digest,
        run_id=secrets.token_bytes(16),
        state=RunState(server=start(to_vector(model))),
    )
    save_checkpoint(folder, begun)
    return begun


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Write the checkpoint so that a crash leaves either the old one or the new one."""
    run = checkpoint.state
    facts = {
        "format": FORMAT,
        "study_digest": checkpoint.study_digest.hex(),
        "run_id": checkpoint.run_id.hex(),
        "next_round": run.next_round,
        "counted": run.counted,
        "statistics": run.statistics,
        "trained": run.trained,
        "calibrated": run.calibrated,
        "doubt": run.doubt,
        "evaluated": run.evaluated,
        "finished": run.finished,
        "groups": [group.to_json() for group in run.groups],
        "steps": run.server.steps,
        "history": checkpoint.history,
        "resting": checkpoint.resting,
    }
    tensors: dict[str, NDArray[Any]] = {
        "average": run.server.average_D,
        "momentum": run.server.momentum_D,
        "second_moment": run.server.second_moment_D,
        "control": run.server.control_D,
        "weights": run.server.weights_D,
        "normalisation": np.frombuffer(run.normalisation, dtype=np.uint8),
        "edges": np.frombuffer(run.edges, dtype=np.uint8),
    }
    write_atomically(folder / FILE_NAME, tensor_file(tensors, {"consilium": json.dumps(facts)}))


def load_checkpoint(folder: Path) -> Checkpoint | None:
    """Return the folder's checkpoint, or None when there is none.

    Raises:
        SettingsError: the file is there but is not a checkpoint of this version.
    """
    path = folder / FILE_NAME
    if not path.exists():
        return None
    try:
        with safe_open(path, "numpy") as file:
            facts = json.loads(file.metadata()["consilium"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no dict
        if facts["format"] not in READABLE:
            raise SettingsError(
                f"{path}: format {facts['format']} is not {FORMAT}, which this version reads; "
                "finish the run with the version that began it, or choose another folder"
            )
        server = ServerState(
            weights_D=tensors["weights"],
            average_D=tensors["average"],
            momentum_D=tensors["momentum"],
            second_moment_D=tensors["second_moment"],
            control_D=tensors["control"],
            steps=facts["steps"],
        )
        return Checkpoint(
            study_digest=bytes.fromhex(facts["study_digest"]),
            run_id=bytes.fromhex(facts["run_id"]),
            state=RunState(
                server=server,
                normalisation=tensors["normalisation"].tobytes(),
                next_round=facts["next_round"],
                counted=facts.get("counted", 0),
                statistics=facts.get("statistics", 0),
                trained=facts["trained"],
                calibrated=facts.get("calibrated", 0),
                doubt=tuple(facts.get("doubt", ())),
                evaluated=facts["evaluated"],
                edges=tensors["edges"].tobytes(),
                finished=facts["finished"],
                groups=tuple(Narrowing.from_json(group) for group in facts.get("groups", ())),
            ),
            history=tuple(facts["history"]),
            resting=facts.get("resting", False),
        )
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise SettingsError(
            f"{path}: is not a readable checkpoint; restore it from a backup, "
            "or choose another folder to begin anew"
        ) from error
