"""What an audit finds: a figure that is claimed, what was measured, and a verdict."""

from dataclasses import dataclass
from enum import StrEnum


class AuditVerdict(StrEnum):
    """``NO_POWER``: not even twice the claim, or half of it, would have been convicted."""

    CONSISTENT = "consistent"
    CONVICTED = "convicted"
    NO_POWER = "no power"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One figure of one release.

    Attributes:
        release: what is released.
        what: the figure.
        claimed: what the study claims.
        measured: the estimate.
        low: lower end of its confidence interval, -infinity if it has none.
        high: upper end, infinity if it has none.
        verdict: whether the claim is refuted.
        convicts: what would be convicted, almost surely, in words.
    """

    release: str
    what: str
    claimed: float
    measured: float
    low: float
    high: float
    verdict: AuditVerdict
    convicts: str


@dataclass(frozen=True, kw_only=True)
class Audit:
    """All findings of an audit of one study.

    ``confidence``: an honest build is acquitted with at least this probability. ``epsilon_low`` is
    a lower bound, ``epsilon_claimed`` the claim, on the epsilon of the whole study for a training
    patient, at ``delta``.
    """

    study: str
    confidence: float
    delta: float
    epsilon_claimed: float
    epsilon_low: float
    findings: tuple[Finding, ...]

    @property
    def convicted(self) -> tuple[Finding, ...]:
        """The findings that refute a claim."""
        return tuple(each for each in self.findings if each.verdict is AuditVerdict.CONVICTED)


def verdict(*, refuted: bool, powerful: bool) -> AuditVerdict:
    """Return the verdict on a figure."""
    if refuted:
        return AuditVerdict.CONVICTED
    return AuditVerdict.CONSISTENT if powerful else AuditVerdict.NO_POWER
