"""Every error a user can meet, in one tree.

::

    ConsiliumError            one plain sentence: what, where, the bound, the remedy
    ├── StudyError            the study file is not acceptable
    ├── SettingsError         a command line, settings file or folder is not acceptable
    ├── DataError             a site's data cannot be read, or cannot be used for this study
    ├── PolicyError           this hospital does not allow what it was asked
    ├── AuditError            the audit log cannot be written, or does not verify
    │   └── OldStateError     this site's files are older than what it signed and others hold
    ├── PrivacyError          a release would not have the privacy it claims
    │   └── BudgetError       a release would exceed the site's privacy budget
    ├── StudyEndedError       a study cannot go on, whatever is tried again
    ├── UnreachableError      the other side did not answer; trying again may help
    ├── UnableError           a site cannot answer, and does not tell why
    └── ProtocolError         the other side broke the secure-sum protocol, or a round failed
        ├── MessageError      bytes that are not a well-formed message of this version
        ├── AuthenticationError  a signature, key, seal or commitment does not verify
        ├── EncodingError     a vector cannot be represented in the ring without wrapping
        └── RoundVoidError    the round is void and releases nothing; the model is unchanged

Command-line entry points print ``str(error)`` and exit with a non-zero status; anything that is
not a ``ConsiliumError`` is a defect and keeps its traceback.
"""

from collections.abc import Collection, Sequence


class ConsiliumError(Exception):
    """Base of every error that is somebody's to mend, told in one sentence.

    Attributes:
        case: which case of its kind this is, one word of this program's own; unlike the sentence,
            which may name a path or a setting, it may be told to the other side.
    """

    def __init__(self, sentence: str = "", *, case: str = "") -> None:
        super().__init__(sentence)
        self.case = case


class StudyError(ConsiliumError):
    """The study is malformed, inconsistent, or asks for something out of bounds."""


class SettingsError(ConsiliumError):
    """A command-line argument, settings file or folder is missing or wrong."""


class DataError(ConsiliumError):
    """Patient data is missing, malformed or unusable; never quotes a patient's values."""


class PolicyError(ConsiliumError):
    """The hospital's own policy does not allow the request."""


class AuditError(ConsiliumError):
    """What happened could not be recorded for ever, so it must not happen."""


class OldStateError(AuditError):
    """The log lacks an entry whose head its owner signed, so its folder was put back."""


class PrivacyError(ConsiliumError):
    """The privacy promised could not be kept, so nothing was released."""


class BudgetError(PrivacyError):
    """The release would exceed a privacy budget."""


class StudyEndedError(ConsiliumError):
    """A study cannot go on as it was approved; it needs another list of sites."""


class UnreachableError(ConsiliumError):
    """The other side could not be reached or did not answer; trying again may help."""


class UnableError(ConsiliumError):
    """A site cannot answer; the reason is the error's cause, and stays in the site's own log."""

    def __init__(self) -> None:
        super().__init__("this site cannot answer; the reason is in its own log")


class ProtocolError(ConsiliumError):
    """The secure-sum protocol was not followed, so nothing was revealed."""


class MessageError(ProtocolError):
    """The bytes are not a well-formed message of a version this build speaks."""


class AuthenticationError(ProtocolError):
    """A signature, key, sealed share or commitment does not verify."""


class EncodingError(ProtocolError):
    """A vector is not finite, out of range, or could wrap around in the ring."""


class RoundVoidError(ProtocolError):
    """The round ended without a sum; the global model is unchanged.

    Attributes:
        garbage: sets of sites, in each of which at least one broke the protocol; empty where no
            site need have, as when too few answered.
    """

    def __init__(self, sentence: str, *, garbage: Sequence[Collection[str]] = ()) -> None:
        super().__init__(sentence)
        self.garbage = tuple(frozenset(sites) for sites in garbage)
