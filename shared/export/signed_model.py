"""An exported model, signed: written once, refused at loading when anything in it was changed.

Guarantee: :func:`load_signed_model` returns only if the signature of ``manifest.json`` verifies
under the given identity, every part has the SHA-256 that the manifest says, and the folder holds no
other model.
"""

import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import torch
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from safetensors import SafetensorError
from safetensors.torch import load

from consilium.shared.crypto.keys import SIGNATURE_BYTES, IdentityKey
from consilium.shared.crypto.transcript import sha256
from consilium.shared.errors import AuthenticationError, ConsiliumError, MessageError, SettingsError
from consilium.shared.export.manifest import (
    LARGEST_BYTES,
    ManifestRoster,
    ModelManifest,
    Recalibrated,
    Validation,
    manifest_statement,
    manifest_variables,
    versions,
    window_of,
)
from consilium.shared.files.atomic_file import umask, write_atomically
from consilium.shared.files.tensor_file import tensor_file
from consilium.shared.model.branch import Branch
from consilium.shared.model.normalisation import Normalisation
from consilium.shared.model.study_model import study_model
from consilium.shared.model.weight_vector import named_arrays
from consilium.shared.study.definition import Study, parse_canonical
from consilium.shared.study.output_names import output_names

MANIFEST, SIGNATURE = "manifest.json", "manifest.sig"
WEIGHTS, STUDY = "model.safetensors", "study.json"
REQUIRED = frozenset({WEIGHTS, STUDY})
MODEL_SUFFIXES = (".safetensors", ".onnx")
LARGEST_PART_BYTES = 1 << 32


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A trained model and what is needed to use it.

    Attributes:
        study: it was trained for.
        model: with its weights.
        normalisation: of its inputs.
        validation: what its outputs meant for patients it was not trained on, if any were kept.
        recalibration: how the weights were changed after training, if they were.
        rosters: that the study had after its first.
    """

    study: Study
    model: Branch
    normalisation: Normalisation
    validation: Validation | None = None
    recalibration: Recalibrated | None = None
    rosters: tuple[ManifestRoster, ...] = ()


def write_signed_model(
    folder: Path,
    trained: Trained,
    key: IdentityKey,
    *,
    simulated: bool,
    rounds: int,
    epsilon: float | None,
    more: Mapping[str, bytes] | None = None,
    mode: int | None = None,
) -> ModelManifest:
    """Write the model into a new folder, which appears whole or not at all.

    Args:
        folder: must not exist.
        trained: what is written.
        key: signs.
        simulated: whether a simulation made it.
        rounds: training rounds behind the weights.
        epsilon: spent on each patient; None without privacy.
        more: further parts by file name.
        mode: of the folder; without it, what this account's umask leaves of 0755.

    Raises:
        SettingsError: the folder exists, or cannot be written.
    """
    if folder.exists():
        raise SettingsError(f"{folder}: exists already; name another folder")
    parts = {
        WEIGHTS: b"".join(tensor_file(named_arrays(trained.model), {})),
        STUDY: trained.study.to_canonical_json(),
        **(more or {}),
    }
    manifest = manifest_of(trained, key, parts, simulated=simulated, rounds=rounds, epsilon=epsilon)
    content = manifest.to_bytes()
    files = {**parts, MANIFEST: content, SIGNATURE: key.sign(manifest_statement(content))}
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
        try:
            for name, body in files.items():
                write_atomically(made / name, body)
            made.chmod(0o755 & ~umask() if mode is None else mode)
            made.rename(folder)
        except BaseException:
            shutil.rmtree(made, ignore_errors=True)
            raise
    except OSError as error:
        raise SettingsError(
            f"{folder}: cannot be written ({error.strerror}); name another folder"
        ) from error
    return manifest


def manifest_of(
    trained: Trained,
    key: IdentityKey,
    parts: Mapping[str, bytes],
    *,
    simulated: bool,
    rounds: int,
    epsilon: float | None,
) -> ModelManifest:
    """Return the manifest of a model and its parts; see :func:`write_signed_model`."""
    study = trained.study
    return ModelManifest(
        study=study.name,
        title=study.title,
        study_digest=study.digest.hex(),
        simulated=simulated,
        made=datetime.now(UTC).isoformat(timespec="seconds"),
        signed_by=key.public.hex(),
        rounds=rounds,
        epsilon=epsilon,
        delta=None if epsilon is None else study.privacy.delta,
        window=window_of(study),
        outputs=output_names(study),
        variables=manifest_variables(study, trained.normalisation),
        validation=trained.validation,
        recalibration=trained.recalibration,
        rosters=trained.rosters,
        versions=dict(versions()),
        parts={name: sha256(content).hex() for name, content in parts.items()},
    )


@dataclass(frozen=True, kw_only=True)
class SignedModel:
    """A model whose signature and digests were checked, ready to use.

    ``digest`` is the SHA-256 (hexadecimal) of ``manifest.json``, and so of the whole model; empty
    if it was never written.
    """

    manifest: ModelManifest
    trained: Trained
    digest: str = ""

    @property
    def manifest_digest(self) -> str:
        """``digest``, also of a model that was never written."""
        return self.digest or sha256(self.manifest.to_bytes()).hex()


def load_signed_model(
    folder: Path, signer: bytes, *, allow: Callable[[Study], None] = lambda _: None
) -> SignedModel:
    """Load an exported model if it is whole and signed by this identity.

    Args:
        folder: that :func:`write_signed_model` wrote, under any name.
        signer: Ed25519 identity (32 bytes) that must have signed.
        allow: refuses a study before its network is made, which may load an installed module.

    Raises:
        AuthenticationError: the signature or a digest does not fit; the sentence says which.
        MessageError: what is signed is not a model of this version.
        SettingsError: a file is missing or cannot be read.
    """
    content = _read(folder / MANIFEST, LARGEST_BYTES)
    _check_signature(folder, content, signer)
    manifest = ModelManifest.from_bytes(content)
    if lacking := REQUIRED - set(manifest.parts):
        raise MessageError(f"{folder / MANIFEST}: names no {min(lacking)}; export the model again")
    parts = {}
    for name, digest in manifest.parts.items():
        if Path(name).name != name or name in (MANIFEST, SIGNATURE):
            raise MessageError(f"{folder / MANIFEST}: {name!r} cannot be the name of a part")
        parts[name] = _read(folder / name, LARGEST_PART_BYTES)
        found = sha256(parts[name]).hex()
        if found != digest:
            raise AuthenticationError(
                f"{folder / name}: its SHA-256 is {found[:16]}..., the signed manifest says "
                f"{digest[:16]}...; the file was changed or damaged, get the export again"
            )
    for file in sorted(folder.iterdir()):
        if file.suffix in MODEL_SUFFIXES and file.name not in parts:
            raise AuthenticationError(
                f"{file}: is not among the parts that the signed manifest names, so nobody signed "
                "it; remove it, or get the export again"
            )
    try:
        trained = _trained(manifest, parts, allow)
        return SignedModel(manifest=manifest, trained=trained, digest=sha256(content).hex())
    except ConsiliumError as error:
        raise MessageError(f"{folder}: {error}") from error


def signed_by(folder: Path) -> bytes:
    """Return the identity that the manifest names as its signer; empty if it is no manifest.

    It is only a claim: use it to choose the identity with which to load the model.

    Raises:
        SettingsError: the manifest cannot be read.
    """
    try:
        manifest = ModelManifest.from_bytes(_read(folder / MANIFEST, LARGEST_BYTES))
    except MessageError:
        return b""
    return bytes.fromhex(manifest.signed_by)


def _check_signature(folder: Path, manifest: bytes, signer: bytes) -> None:
    signature = _read(folder / SIGNATURE, 2 * SIGNATURE_BYTES)
    try:
        Ed25519PublicKey.from_public_bytes(signer).verify(signature, manifest_statement(manifest))
    except InvalidSignature:
        raise AuthenticationError(
            f"{folder}: the signature in {SIGNATURE} does not fit {MANIFEST} and the identity "
            f"{signer.hex()[:16]}... that must have signed it; one of the files was changed, or "
            "another identity signed it: get the export again from your coordinator"
        ) from None


def _trained(
    manifest: ModelManifest, parts: Mapping[str, bytes], allow: Callable[[Study], None]
) -> Trained:
    study = parse_canonical(parts[STUDY])
    if study.digest.hex() != manifest.study_digest:
        raise MessageError(f"{STUDY} is not the study whose digest the manifest names")
    normalisation = Normalisation.from_bytes(
        manifest.normalisation.to_bytes(), study, to_train=False
    )
    if manifest.variables != manifest_variables(study, normalisation):
        raise MessageError("the manifest's variables are not those of the study")
    allow(study)
    model = study_model(study)
    expected = model.state_dict()
    try:
        tensors = load(parts[WEIGHTS])
    except SafetensorError as error:
        raise MessageError(f"{WEIGHTS} is not a safetensors file ({error})") from error
    if {n: (t.shape, t.dtype) for n, t in tensors.items()} != {
        n: (t.shape, t.dtype) for n, t in expected.items()
    }:
        raise MessageError(f"{WEIGHTS} does not have the tensors of the study's model")
    if not all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values()):
        raise MessageError(f"{WEIGHTS} holds a number that is not finite")
    model.load_state_dict(tensors)
    return Trained(
        study=study,
        model=model.eval(),
        normalisation=normalisation,
        validation=manifest.validation,
        recalibration=manifest.recalibration,
        rosters=manifest.rosters,
    )


def _read(file: Path, most: int) -> bytes:
    try:
        if not file.is_file() and file.exists():
            raise MessageError(f"{file}: is no file, so it is no part of an export")
        if file.stat().st_size > most:
            raise MessageError(f"{file}: is above {most} bytes, so it is no part of an export")
        return file.read_bytes()
    except OSError as error:
        raise SettingsError(
            f"{file}: cannot be read ({error.strerror}); name the folder of an exported model"
        ) from error
