"""What kind of records a file or folder has, by its form, and the texts of a system of its own."""

from itertools import islice
from pathlib import Path

from consilium.client.sources.common.tree import files_below
from consilium.client.sources.recorded import edf, nifti_files, scans
from consilium.simulations.guesses.clinical import ASKED, SYSTEMS, System
from consilium.simulations.guesses.databases import is_database, names_in
from consilium.simulations.guesses.texts import WRITTEN, study_head, variable_lines
from consilium.simulations.guesses.toml_text import key_text, line, remark

FEWEST_DEATHS = 10
_MESSAGES = (".hl7", ".er7", ".adt", ".oru", ".msg", ".txt", ".dat")
_DICOM = (".dcm", ".dicom", ".ima")
_LOOKED_FILES = 10_000
OMOP_TABLES = {"person", "visit_occurrence", "measurement"}


def kind_of(path: Path) -> str | None:
    """Return the source that a file or folder is of by its form; None if it may be tables.

    ``omop-files`` is a folder of OMOP's tables as CSV or Parquet.
    """
    if path.is_file():
        return _of_file(path)
    files = list(islice(files_below(path), _LOOKED_FILES))
    names = [file.name.lower() for file in files]

    def ends(*suffixes: str) -> bool:
        return any(name.endswith(suffixes) for name in names)

    if ends(".ndjson", ".ndjson.gz", ".jsonl", ".jsonl.gz") or _has_resources(files):
        return "fhir"
    if ends(*edf.SUFFIXES):
        return "edf"
    if ends(".hea"):
        return "waveforms"
    if ends(*_DICOM, *nifti_files.SUFFIXES) or any(_is_dicom(file) for file in files[:200]):
        return "image-slices"
    if (path / "data").is_dir() and any((path / "data").rglob("*.parquet")):
        return "meds"
    if ends(".hl7", ".hl7.gz") or any(
        _is_hl7(file) for file in files[:50] if file.name.lower().endswith(_MESSAGES)
    ):
        return "hl7"
    if {name.partition(".")[0] for name in names} >= OMOP_TABLES:
        return "omop-files"
    if ends(*scans.PICTURES):
        return "image-slices"
    return None


def _of_file(path: Path) -> str | None:
    name = path.name.lower()
    for source, endings in (
        ("edf", edf.SUFFIXES), ("waveforms", (".hea",)), ("image-slices", (".npz",)),
        ("image-slices", (*_DICOM, *nifti_files.SUFFIXES, *scans.PICTURES)),
        ("fhir", (".ndjson", ".ndjson.gz", ".jsonl", ".json")), ("zip", (".zip",)),
    ):  # fmt: skip  # reads as a table
        if name.endswith(endings):
            return source
    if _is_hl7(path):
        return "hl7"
    if is_database(path):
        tables = {table.lower() for table in names_in(path)}
        return "omop" if tables >= {"person", "visit_occurrence"} else None
    return "image-slices" if _is_dicom(path) else None


def _first(path: Path, size: int) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(size)
    except OSError:
        return b""


def _is_hl7(path: Path) -> bool:
    begun = _first(path, 64).lstrip(b"\xef\xbb\xbf\x0b\r\n ")
    return begun.startswith((b"MSH|", b"FHS|", b"BHS|"))


def _is_dicom(path: Path) -> bool:
    return _first(path, 132)[128:] == b"DICM"


def _has_resources(files: list[Path]) -> bool:
    documents = [file for file in files if file.name.lower().endswith((".json", ".json.gz"))][:5]
    return any(
        b'"resourceType"' in _first(file, 4096) or file.suffix == ".gz" for file in documents
    )


def system_texts(path: Path, source: str, name: str) -> tuple[str, str]:
    """Return the study and the settings of a system of its own.

    Raises:
        DataError: its records cannot be read, or lack what a study needs.
    """
    found = SYSTEMS[source](path)
    label, kind, why, task = _outcome(found)
    data = [
        'source = "hospital"',
        line("label", label, "# guess: a name for the outcome of the settings"),
        "window_h = 48  # guess: two days",
    ]
    title = "To predict death in hospital" if label == "died" else "To predict days in hospital"
    lines = study_head(name, title, persons=found.persons, data=data, task=task)
    lines += [
        remark("A study for hospitals takes center and spread from the literature, and reads not "
               "what is known only after the outcome."),
        "[variables]",
        *variable_lines(found.quantities),
        "Age = {}  # guess: these records have births",
        "Gender = {}  # guess: and sexes",
    ]  # fmt: skip  # reads as the file
    records = [
        remark(WRITTEN),
        *map(remark, found.remarks),
        "[data]",
        line("source", source, "# guess: by the form of the files"),
        line("file" if source == "omop" else "path", str(path)),
        *(line(*one) for one in found.lines),
    ]
    if found.unused:
        told = ", ".join(found.unused[:20]) + (" ..." if len(found.unused) > 20 else "")
        records.append(remark(f"not read: {told}"))
    for one in found.quantities:
        code: object = int(one.source) if source == "omop" else one.source
        records += [
            "",
            f"[data.variables.{key_text(one.name)}]",
            line("codes", [code], f"# guess: {one.why}"),
            line("unit", one.unit, "# guess: of rows that do not say one"),
        ]
    records += [
        "",
        "[data.outcome]",
        line("kind", kind, f'# guess: {why}; or "condition" with codes, "readmission"'),
        "",
        "[test]",
        line("fraction", 0.2, "# guess: a fifth of the persons"),
    ]
    return "\n".join(lines) + "\n", "\n".join(records) + "\n"


def _outcome(found: System) -> tuple[str, str, str, list[str]]:
    """Return the label, the outcome's kind and its reason, and the lines of the task."""
    if found.deaths >= min(FEWEST_DEATHS, max(2, found.persons // 20)):
        return "died", "death", f"{found.deaths} died", ['kind = "binary"']
    task = [
        'kind = "regression"',
        f"center = 5.0  {ASKED}the usual days of a stay",
        f"spread = 5.0  {ASKED}and how much they differ",
    ]
    return "days", "length-of-stay", f"only {found.deaths} died", task
