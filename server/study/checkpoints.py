"""What a coordinator needs to go on after a crash, saved in one atomic step.

A run that goes on from a checkpoint skips the round that may have begun after it was saved (see
:meth:`consilium.server.study.run.RunState.after_crash`): a failed round is skipped, never retried.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from consilium.server.study.aggregation import ServerState
from consilium.server.study.run import RunState
from consilium.shared.errors import SettingsError
from consilium.shared.files.atomic_file import write_atomically

FILE_NAME = "checkpoint.safetensors"
FORMAT = 4
READABLE = (3, FORMAT)  # 3 held vectors that the strategy did not need

_DTYPES = {"<f8": "F64", "<f4": "F32", "|u1": "U8"}


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A run between two rounds.

    Attributes:
        study_digest: of the study.
        run_id: the run's own, kept for good.
        state: weights and counters.
        history: one JSON record for each finished round.
        resting: no round has begun since it was saved, so that none need be skipped.
    """

    study_digest: bytes
    run_id: bytes
    state: RunState
    history: tuple[dict[str, Any], ...] = ()
    resting: bool = False


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Write the checkpoint so that a crash leaves either the old one or the new one."""
    run = checkpoint.state
    facts = {
        "format": FORMAT,
        "study_digest": checkpoint.study_digest.hex(),
        "run_id": checkpoint.run_id.hex(),
        "next_round": run.next_round,
        "trained": run.trained,
        "evaluated": run.evaluated,
        "finished": run.finished,
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
    write_atomically(folder / FILE_NAME, _safetensors(tensors, {"consilium": json.dumps(facts)}))


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
                trained=facts["trained"],
                evaluated=facts["evaluated"],
                edges=tensors["edges"].tobytes(),
                finished=facts["finished"],
            ),
            history=tuple(facts["history"]),
            resting=facts.get("resting", False),
        )
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise SettingsError(
            f"{path}: is not a readable checkpoint; restore it from a backup, "
            "or choose another folder to begin anew"
        ) from error


def _safetensors(
    tensors: Mapping[str, NDArray[Any]], metadata: Mapping[str, str]
) -> Iterator[bytes | memoryview]:
    """Yield a file as safetensors' own ``save`` would make it, without copying the tensors.

    The format: the header's length in 8 bytes, the header as JSON, then the tensors one after the
    other (https://github.com/huggingface/safetensors#format).
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    end = 0
    for name, tensor in tensors.items():
        begin, end = end, end + tensor.nbytes
        header[name] = {
            "dtype": _DTYPES[tensor.dtype.newbyteorder("<").str],
            "shape": list(tensor.shape),
            "data_offsets": [begin, end],
        }
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % 8)  # so that the tensors lie where a processor reads well
    yield len(encoded).to_bytes(8, "little") + encoded
    for tensor in tensors.values():
        little = np.ascontiguousarray(tensor, tensor.dtype.newbyteorder("<"))
        yield little.view(np.uint8).data
