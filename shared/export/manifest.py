"""``manifest.json`` of an exported model: what it is, what it reads, and what its answers mean.

::

    manifest.json        this, for people and programs
    manifest.sig         Ed25519 over the manifest's bytes, 64 bytes
    study.json           the study in canonical form; its SHA-256 is the study's digest
    model.safetensors    the weights by name

The manifest names every other part with its SHA-256, so that one signature covers all.
"""

import platform
from collections.abc import Mapping
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field, ValidationError

from consilium.shared.crypto.transcript import encode
from consilium.shared.errors import MessageError
from consilium.shared.figures.operating_range import Band, Threshold
from consilium.shared.files.strict_toml import StrictTable
from consilium.shared.model.normalisation import Normalisation
from consilium.shared.study.definition import Study
from consilium.shared.study.dictionary import Finite
from consilium.shared.version import VERSION

LARGEST_BYTES = 1 << 24
FORMAT = 1

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class ManifestVariable(StrictTable):
    """A variable the model reads: the study's declaration, and the federation's normalisation.

    A value becomes ``(z - mean) / deviation`` with z as in
    :mod:`consilium.shared.model.normalisation`.
    """

    name: str
    unit: str
    low: Finite
    high: Finite
    role: Literal["series", "static"]
    mean: Finite
    deviation: Finite


class Validation(StrictTable):
    """What the model's outputs meant for patients it was not trained on.

    Attributes:
        of: whose patients they were.
        patients: how many; not whole where the counts carry privacy noise.
        bands: for each output that is a risk, how often the outcome happened at risks like it.
        thresholds: for each output that is a risk.
        errors: for each target in regression, the root of its mean squared error, in its unit.
    """

    of: str
    patients: Finite
    bands: tuple[tuple[Band, ...], ...] = Field(default=(), strict=False)
    thresholds: tuple[tuple[Threshold, ...], ...] = Field(default=(), strict=False)
    errors: tuple[float | None, ...] = Field(default=(), strict=False)


class Recalibrated(StrictTable):
    """Says that the weights were changed after training, and how.

    The log-odds of output k are ``slopes[k]`` times those of training, plus ``intercepts[k]``.

    Attributes:
        on: whose patients it was fitted to.
        made_from: SHA-256 of the manifest of the model it was made from; None where the
            training run itself recalibrated it.
    """

    on: str
    slopes: tuple[Finite, ...] = Field(strict=False)
    intercepts: tuple[Finite, ...] = Field(strict=False)
    made_from: Digest | None = None


class ManifestRoster(StrictTable):
    """A later roster of the study than the one that its text names, from a round on.

    ``digest`` is that of names, identities and sizes, as both sides' audit logs have it.
    """

    version: int
    digest: Digest
    round: int
    joined: tuple[str, ...] = Field(strict=False)
    left: tuple[str, ...] = Field(strict=False)


class ModelManifest(StrictTable):
    """What ``manifest.json`` holds; ``parts`` has the SHA-256 of every other part by name.

    ``simulated`` says that a simulation signed it with a key of its own, not a coordinator.
    ``epsilon`` is what training spent on each patient at ``delta``; None without privacy.
    ``validation`` is of the model as it is, recalibrated or not. ``rosters`` are those that the
    study had after its first; empty if its sites never changed.
    """

    format: Literal[1] = 1
    study: str
    title: str
    study_digest: Digest
    simulated: bool
    made: str
    signed_by: Digest
    rounds: int
    epsilon: float | None
    delta: float | None
    window: str
    outputs: tuple[str, ...] = Field(strict=False)
    variables: tuple[ManifestVariable, ...] = Field(strict=False)
    validation: Validation | None
    recalibration: Recalibrated | None = None
    rosters: tuple[ManifestRoster, ...] = Field(default=(), strict=False)
    versions: dict[str, str]
    parts: dict[str, Digest]

    def to_bytes(self) -> bytes:
        """JSON that a person can read; these very bytes are signed."""
        empty = set() if self.rosters else {"rosters"}
        return self.model_dump_json(indent=1, exclude=empty).encode() + b"\n"

    @classmethod
    def from_bytes(cls, content: bytes) -> "ModelManifest":
        """Parse what :meth:`to_bytes` wrote.

        Raises:
            MessageError: it is not a manifest of this version; names the key.
        """
        try:
            return cls.model_validate_json(content)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise MessageError(
                f"manifest.json: {where}: {str(first['msg']).lower()}; it must be written by a "
                "version of the same format, export the model again"
            ) from error

    @property
    def recalibrated(self) -> str:
        """Say in a sentence whether the model was recalibrated, on whom and how."""
        known = self.recalibration
        if known is None:
            return "Not recalibrated: the weights are those that training ended with."
        changes = "; ".join(
            f"{name}: log-odds times {slope:.2f}, {intercept:+.2f}"
            for name, slope, intercept in zip(
                self.outputs, known.slopes, known.intercepts, strict=True
            )
        )
        return f"Recalibrated on {known.on}; {changes}."

    @property
    def sites(self) -> str:
        """Say in a sentence how the study's sites changed while it ran; empty if they did not."""
        changes = [
            f"from round {one.round} on (roster {one.version}) "
            + ", ".join(
                [f"{site} joined" for site in one.joined] + [f"{site} left" for site in one.left]
            )
            for one in self.rosters
        ]
        return f"Its sites changed: {'; '.join(changes)}." if changes else ""

    @property
    def normalisation(self) -> Normalisation:
        """The federation's normalisation."""
        return Normalisation(
            mean_V=np.array([variable.mean for variable in self.variables]),
            deviation_V=np.array([variable.deviation for variable in self.variables]),
        )


def manifest_variables(study: Study, normalisation: Normalisation) -> tuple[ManifestVariable, ...]:
    """Return what a manifest says of the study's variables, in their order."""
    return tuple(
        ManifestVariable(
            name=name,
            unit=variable.unit,
            low=variable.low,
            high=variable.high,
            role=variable.role,
            mean=float(mean),
            deviation=float(deviation),
        )
        for (name, variable), mean, deviation in zip(
            study.variables.items(), normalisation.mean_V, normalisation.deviation_V, strict=True
        )
    )


def window_of(study: Study) -> str:
    """Say in words how much of a stay the model reads."""
    data = study.data
    unit = "hours" if data.clock == "hour" else "places"
    which = "first" if data.fixed or data.after_event else "last"
    window = f"the {which} {data.window_h} {unit}, in {data.steps} steps"
    if data.after_event is not None:
        after = data.after_event
        window += f", from when {after.variable} is first {after.least:g} or more"
    return window


def versions() -> Mapping[str, str]:
    """Return the versions of the software that makes an export."""
    return {
        "consilium": VERSION,
        "torch": str(torch.__version__),
        "python": platform.python_version(),
    }


def manifest_statement(manifest: bytes) -> bytes:
    """What the coordinator signs."""
    return encode("model", manifest)
