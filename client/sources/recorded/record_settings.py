"""The ``[data]`` tables of recordings, images and molecules: whose each is, and its label."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from consilium.client.sources.common.settings import (
    DataSettings,
    FilePath,
    Listed,
    Number,
    SettingsPart,
)

Codes = Annotated[tuple[Annotated[tuple[str, ...], Listed], ...], Listed]
Names = Annotated[tuple[str, ...], Listed]


class LabelRule(SettingsPart):
    """How a cell becomes a label: a number as it stands, a word of ``values``, or ``codes``.

    Attributes:
        values: numbers for words, such as ``{ yes = 1, no = 0 }``.
        codes: for each output of the study the codes that mean it, ``[["59118001"], ["164889003",
            "164890007"]]``; a label is 1 if the cell holds one of them, otherwise 0.
    """

    values: dict[str, Number] = Field(default_factory=dict)
    codes: Codes = ()

    @model_validator(mode="after")
    def _one_rule(self) -> Self:
        if self.values and self.codes:
            raise ValueError("has values and codes; keep one")
        return self


class LabelsFile(LabelRule):
    """A CSV beside the records: a row a record, a folder, an examination or a person.

    Attributes:
        file: the CSV, in UTF-8.
        record: the column that says which records a row is about: the name of a file or folder, an
            identifier of a series or examination, or a person; by default the first of ``record``,
            ``file``, ``folder``, ``series``, ``examination``, ``study``, ``patient`` and ``person``
            that the file has.
        person: the column that names the person; by default ``patient`` or ``person``, if that is
            not what says which records a row is about.
        label: the column of the label (several for a multilabel study); by default the study's.
        annotations: the column that names a file with the record's annotations.
    """

    file: FilePath
    separator: str = Field(default=",", min_length=1, max_length=1)
    record: str | None = None
    person: str | None = None
    label: Annotated[str | tuple[str, ...] | None, Listed] = None
    annotations: str | None = None


class StaticVariable(SettingsPart):
    """Where a record has one of the study's static variables.

    Attributes:
        column: its column in the table of labels.
        unit: UCUM unit where the record says none, or a wrong one.
        values: numbers for words, such as ``{ Male = 1, Female = 0 }``.
    """

    column: str | None = None
    unit: str | None = None
    values: dict[str, Number] = Field(default_factory=dict)


class ImageVariable(StaticVariable):
    """Where a scan has one of the study's static variables.

    Attributes:
        attribute: keyword of a DICOM attribute, such as ``PatientAge``, which has its own unit.
    """

    attribute: str | None = Field(default=None, pattern=r"^[A-Z][A-Za-z0-9]{0,63}$")


class ImageSlicesSettings(DataSettings):
    """Image volumes: DICOM, NIfTI, PNG and JPEG below a folder, or an ``.npz`` of MedMNIST.

    Attributes:
        path: the folder, or the ``.npz``.
        split: the split of an ``.npz``.
        labels: the table of labels; by default ``labels.csv`` in the folder.
        person: where DICOM's persons are named: PatientID, or ``labels`` for the table's column.
        series: which of several series of one examination is read: the one with most slices, the
            first or last by time, or all of them, each as a stay.
        description: keeps only series whose description matches this pattern, such as ``*T1*``.
        plane: the plane of the slices; ``acquired`` takes them as the scanner made them.
        window: ``voi`` applies the window that a DICOM file asks for; otherwise values are as
            measured.
        variables: where scans have the study's static variables.
    """

    path: FilePath
    split: str = "train"
    labels: LabelsFile | None = None
    person: Literal["PatientID", "labels"] = "PatientID"
    series: Literal["largest", "first", "last", "all"] = "largest"
    description: str = Field(default="*", min_length=1)
    plane: Literal["axial", "coronal", "sagittal", "acquired"] = "axial"
    window: Literal["none", "voi"] = "none"
    variables: dict[str, ImageVariable] = Field(default_factory=dict)


class MoleculesSettings(DataSettings):
    """A CSV of molecules.

    Attributes:
        path: the CSV.
        column: the SMILES, by default the column called ``smiles``.
        compound: the column that says which lines are one compound, such as an InChIKey; by default
            the SMILES, so that a compound written in two ways is two.
    """

    path: FilePath
    column: str | None = None
    compound: str | None = None


class RecordVariable(StaticVariable):
    """Where a record has one of the study's variables.

    Attributes:
        signal: names of its channel, the first that a record has; by default the variable's name.
        comment: a static variable's name in a header's comments.
    """

    signal: Names = ()
    comment: str | None = None


class FilterSettings(SettingsPart):
    """Zero-phase Butterworth filters: what is slower, faster, or just at ``notch_hz`` goes."""

    low_hz: float | None = Field(default=None, gt=0)
    high_hz: float | None = Field(default=None, gt=0)
    notch_hz: float | None = Field(default=None, gt=0)
    order: int = Field(default=4, ge=1, le=8)


class AnnotationWindows(SettingsPart):
    """Windows that begin at annotations, in place of consecutive ones.

    Attributes:
        texts: annotations that count; by default those of ``values``, or all.
        values: the window's label by the annotation's text; without them it is the record's label.
            With the label ``aami``, the class of a beat (N, S, V, F, Q are 0 to 4) in place of
            WFDB's symbols.
        offset_s: seconds from the annotation's begin to the window's.
    """

    texts: Names = ()
    values: dict[str, Number] = Field(default_factory=dict)
    offset_s: Number = 0.0


class CommentSettings(LabelRule):
    """What a header's comments say: the label's name there, and the person's."""

    label: str | None = None
    person: str | None = None


class RecordingsSettings(DataSettings):
    """Recordings of signals.

    Attributes:
        path: a folder, or a zip.
        records: those to read, by default all.
        labels: a table beside the records.
        comments: what headers say.
        same_person: groups of records that are one person's, ``[["201", "202"]]``; says of all
            others that each is another person. Empty, it says so of all.
        variables: where records have the study's variables.
        filter: applied before resampling.
        annotations: windows at annotations.
        baseline: what is subtracted from a channel: its median, or nothing; by default the median
            of what the study has in volts.
        thin_normal: of normal beats, keep only every n-th; 1 keeps all.
    """

    path: FilePath
    records: tuple[str, ...] = Field(default=(), strict=False)
    labels: LabelsFile | None = None
    comments: CommentSettings = CommentSettings()
    same_person: Annotated[tuple[Names, ...], Listed] | None = None
    variables: dict[str, RecordVariable] = Field(default_factory=dict)
    filter: FilterSettings = FilterSettings()
    annotations: AnnotationWindows | None = None
    baseline: Literal["median", "none"] | None = None
    thin_normal: int = Field(default=1, ge=1)


class WaveformsSettings(RecordingsSettings):
    """WFDB records.

    Attributes:
        annotator: the suffix of the files with annotations.
    """

    annotator: str = Field(default="atr", pattern=r"^[A-Za-z0-9_]{1,16}$")


class EdfSettings(RecordingsSettings):
    """EDF, EDF+ and BDF files."""
