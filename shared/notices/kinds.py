"""What may be told, and the fixed sentences it is told in.

Guarantee: a notice is made of these sentences, names of studies and sites, digests, round numbers
and dates. No field can hold a path, a title, a reason, a figure of a record, or text from outside:
names are checked to be letters, digits and hyphens.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from consilium.shared.crypto.transcript import digest as digest_of

Kind = Literal[
    "study-offered",
    "approval-waiting",
    "site-missing",
    "coordinator-unreachable",
    "round-void",
    "disk-nearly-full",
    "certificate-ending",
    "study-finished",
]
KINDS: tuple[Kind, ...] = get_args(Kind)
MOST_NAMED = 20

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
_DIGEST = re.compile(r"[0-9a-f]{16}", re.ASCII)
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
_CASES = ("", "server", "authority", "finished", "stopped", "persons")


@dataclass(frozen=True, kw_only=True)
class NoticeEvent:
    """Something happened that people are told of, once.

    Attributes:
        kind: what.
        once: what makes this event another one than the last of its kind, such as a time; not told.
        study: name of the study, if one is meant.
        study_digest: the first 16 digits of its digest.
        sites: names of the sites that are meant.
        round: number of the round that is meant.
        day: a date that is meant, ISO 8601.
        case: which sentence of its kind.

    Raises:
        ValueError: a field holds what may not be told; nothing is told then.
    """

    kind: Kind
    once: str
    study: str = ""
    study_digest: str = ""
    sites: tuple[str, ...] = ()
    round: int | None = None
    day: str = ""
    case: str = ""

    def __post_init__(self) -> None:
        fits = (
            self.kind in KINDS
            and all(
                _NAME.fullmatch(name) for name in (*self.sites, *([self.study] * bool(self.study)))
            )
            and (not self.study_digest or _DIGEST.fullmatch(self.study_digest))
            and (not self.day or _DATE.fullmatch(self.day))
            and (self.round is None or (type(self.round) is int and 0 <= self.round < 1 << 32))
            and self.case in _CASES
        )
        if not fits:
            raise ValueError(f"an event of kind {self.kind!s:.32} holds what is not told")

    @property
    def about(self) -> str:
        """What it is about: a kind's quiet time is counted for each of these."""
        site = self.sites[0] if self.kind == "site-missing" else ""
        return f"{self.study_digest}/{site}/{self.case}"

    def id(self, sender: bytes) -> str:
        """Return what identifies this event of this sender, 32 hexadecimal digits.

        Args:
            sender: the sender's identity, so that two hospitals' notices are told apart.
        """
        what = (self.kind, self.about, f"{self.round}", self.once)
        return digest_of("notice", sender, *what).hex()[:32]


@dataclass(frozen=True, kw_only=True)
class Sender:
    """Who tells: the coordinator, or a site by its name; ``identity`` is its Ed25519 key."""

    side: Literal["coordinator", "site"]
    name: str
    identity: bytes

    @property
    def shown(self) -> str:
        """The sender as notices name it."""
        return "coordinator" if self.side == "coordinator" else f"site {self.name}"

    @property
    def command(self) -> str:
        """The command of this side."""
        return f"consilium-{self.side}"


def subject_and_text(sender: Sender, events: Sequence[NoticeEvent]) -> tuple[str, str]:
    """Return the subject, one short line, and the text of a notice.

    Args:
        sender: who tells.
        events: at least one; all of one kind and about the same.
    """
    first, last = events[0], events[-1]
    here = sender.side == "site"
    study = f"study {last.study}"
    match first.kind:
        case "study-offered":
            subject = f"{study} is offered to this hospital"
            text = (
                "Nothing of it happens here before a person at this hospital approves it.\n"
                f"Read it: {sender.command} review {last.study}, or {sender.command} web."
            )
        case "approval-waiting" if here:
            waits = "another person's approval" if last.case == "persons" else "an approval"
            subject = f"{study} waits for {waits}"
            text = (
                f"Approve it, or refuse it: {sender.command} review {last.study}, or "
                f"{sender.command} web.\n"
                "This is repeated once a day while the study is offered and nobody has decided."
            )
        case "approval-waiting":
            subject = f"{study} waits for approvals"
            text = (
                f"Not approved yet by: {_listed(last.sites)}.\n"
                "This is repeated once a day while the study waits for them."
            )
        case "site-missing":
            subject = f"site {last.sites[0]} is missing"
            text = (
                "It has not asked for work for as long as missing_minutes says,\n"
                "and an open study has it in its roster.\n"
                f"See {sender.command} watch; telephone the hospital."
            )
        case "coordinator-unreachable":
            subject = "the coordinator cannot be reached"
            text = (
                "It has not answered, or has not accepted this site, for as long as "
                f"missing_minutes says.\nRun {sender.command} preflight here."
            )
        case "round-void":
            rounds = [str(event.round) for event in events]
            one = len(rounds) == 1
            numbers = f"round {rounds[0]} is void" if one else f"{len(rounds)} rounds are void"
            subject = f"{study}: {numbers}"
            listed = "" if one else f"Rounds {_listed(rounds)}.\n"
            more = (
                "watch says why"
                if not here
                else "status says what this site refused last, if it did"
            )
            text = (
                f"{listed}The model is as it was before, and the study goes on.\n"
                f"{sender.command} {more}."
            )
        case "disk-nearly-full":
            subject = "the disk is nearly full"
            text = "With a full disk nothing can be recorded, so nothing is done. Make room."
        case "certificate-ending" if last.case == "authority":
            subject = f"the coordinator's certificate authority ends on {last.day}"
            text = (
                "Sites trust no other, so the coordinator must be set up anew before, and its "
                "sites invited again."
            )
        case "certificate-ending":
            subject = f"the coordinator's certificate ends on {last.day}"
            remedy = "tell its operator, who must run" if here else "run"
            text = (
                "The coordinator renews it by itself long before, and has not.\n"
                f"See its log, and {remedy} consilium-coordinator rotate-keys."
            )
        case "study-finished":
            how = "has finished" if last.case == "finished" else "was stopped"
            subject = f"{study} {how}"
            text = (
                "It asks this hospital for nothing more."
                if here
                else f"What was learned is in its folder: {sender.command} export {last.study}."
            )
    named = f"Study {last.study}, digest {last.study_digest}.\n" if last.study else ""
    return f"Consilium, {sender.shown}: {subject}", f"{named}{text}"


def _listed(names: Sequence[str]) -> str:
    more = len(names) - MOST_NAMED
    return ", ".join(names[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
