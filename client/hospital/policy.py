"""What this hospital allows, whatever a study asks for; checked before a patient's record is read.

The policy is the hospital's own; nothing that a coordinator sends can widen it. Limits on threads,
memory and GPU are enforced by :mod:`consilium.client.hospital.process_limits`, the lifetime budget
by the ledger.

A hospital's own figures leave only if the policy allows it, and only within the secure sum: the
site writes them into its own positions of the vector, where all other sites write zeros.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from consilium.client.hospital.defaults import LIFETIME_DELTA, LIFETIME_EPSILON
from consilium.client.hospital.roster_trust import (
    RosterTrust,
    Standing,
    summed_with,
    vouched_by_default,
)
from consilium.client.hospital.working_hours import WorkingHours
from consilium.shared.crypto.keys import Roster
from consilium.shared.errors import PolicyError
from consilium.shared.study.definition import Study
from consilium.shared.study.rounds import MINIMUM_SITES

OnMovedCohort = Literal["tell", "stop"]
Identifiers = Literal["digest", "clear"]
TaskKind = Literal["binary", "multiclass", "multilabel", "regression", "survival"]
TASKS: tuple[TaskKind, ...] = ("binary", "multiclass", "multilabel", "regression", "survival")


@dataclass(frozen=True, kw_only=True)
class DecisionPolicy:
    """What this hospital wants to be noted of scores at the bedside.

    Attributes:
        required: whether nobody is scored where it cannot be noted; if not, it is told and goes on.
        keep_days: days after which notes are deleted.
        largest_mib: size at which a day's notes go on in another file, in MiB.
        identifiers: whether patients and stays stand there as keyed digests or as they are.
    """

    required: bool = True
    keep_days: int = 365
    largest_mib: int = 16
    identifiers: Identifiers = "digest"


@dataclass(frozen=True, kw_only=True)
class Policy:
    """Bounds on the studies this site takes part in.

    Attributes:
        largest_study_epsilon: most privacy budget one study may use.
        lifetime_epsilon: most privacy budget all studies together may use.
        delta: probability with which the lifetime guarantee may fail.
        minimum_sites: fewest sites whose sum may be released.
        vouched_at_least: fewest other sites, of those summed with this one, that must be vouched
            for; None asks as many as the study's guarantee needs, 0 asks none.
        new_keys_by_rule: whether a hospital of an approved study that came back under a new key, as
            its recovery code proves, stands under it without a person here being asked.
        members_by_rule: whether sites join and leave an approved study without a person here being
            asked, if those that join are vouched for and weigh no more than the largest that stays.
        minimum_patients: fewest patients of this site that may train a study's model.
        smallest_group: fewest of this site's patients that may be counted as a subgroup, in
            studies without privacy noise; with noise, the noise hides small groups.
        release_own_figures: whether a study that asks for figures per site gets this site's.
        tell_budget_left: whether the coordinator is told how much lifetime epsilon is left.
        allow_without_privacy: whether studies without differential privacy are allowed; suited only
            to data that are public already.
        studies: digests of the studies that may be approved; None allows any study.
        approvals_needed: how many persons must approve a study before it is approved.
        tasks: kinds of prediction that are allowed.
        sources: kinds of records that may be used; None allows all that site.toml sets up.
        installed_sources: sources of installed packages that may be loaded; none by default.
        installed_models: modules of installed packages that may be a study's network; none by
            default.
        variables: measurements that may be used; None allows all.
        on_moved_cohort: what happens when a study's records are not those it was approved for:
            "tell" this hospital alone and go on, or "stop" answering until it is approved again.
        hours: when this site works for studies; None means always.
        threads: most threads of one computation.
        memory_mib: most memory that the site's process may hold, in MiB; None means no bound.
        gpu: whether computations may use a graphics card.
        answer_after_s: seconds after a round's request at which its answer leaves, whatever the
            computation took; None answers at once.
        decisions: how scores at the bedside are noted; None notes none.
    """

    largest_study_epsilon: float = 8.0
    lifetime_epsilon: float = LIFETIME_EPSILON
    delta: float = LIFETIME_DELTA
    minimum_sites: int = MINIMUM_SITES
    vouched_at_least: int | None = None
    new_keys_by_rule: bool = True
    members_by_rule: bool = False
    minimum_patients: int = 20
    smallest_group: int = 5
    release_own_figures: bool = False
    tell_budget_left: bool = False
    allow_without_privacy: bool = False
    studies: frozenset[bytes] | None = None
    approvals_needed: int = 1
    tasks: frozenset[str] = frozenset(TASKS)
    sources: frozenset[str] | None = None
    installed_sources: frozenset[str] = frozenset()
    installed_models: frozenset[str] = frozenset()
    variables: frozenset[str] | None = None
    on_moved_cohort: OnMovedCohort = "tell"
    hours: WorkingHours | None = None
    threads: int = 1
    memory_mib: int | None = None
    gpu: bool = False
    answer_after_s: float | None = None
    decisions: DecisionPolicy | None = None

    def check_study(self, study: Study) -> None:
        """Refuse a study that asks for more than this hospital allows.

        Raises:
            PolicyError: the sentence names the value, the bound, and who can change it.
        """
        if self.studies is not None and study.digest not in self.studies:
            raise PolicyError(
                f"study {study.name} ({study.digest.hex()[:16]}) is not among the "
                f"{len(self.studies)} that this site's policy allows; ask the site to add its "
                "digest to [studies] allowed",
                case="study",
            )
        self._check_privacy(study)
        self._check_data(study)
        self.check_modules(study)
        if study.minimum_sites < self.minimum_sites:
            raise PolicyError(
                f"the study releases sums of {study.minimum_sites} sites, below this site's bound "
                f"of {self.minimum_sites}; raise [aggregation] minimum_sites or ask the site",
                case="sites",
            )

    def check_modules(self, study: Study) -> None:
        """Refuse a study whose network is code that this hospital does not allow.

        Raises:
            PolicyError: the sentence names the module, and who can change it.
        """
        for module in study.model.modules:
            if module.module not in self.installed_models:
                raise PolicyError(
                    f"the study's network is the installed module {module.module!r}, which this "
                    "site's policy does not allow; if your people wrote or checked it, add it to "
                    "[models] installed in policy.toml",
                    case="module",
                )

    def check_roster(self, study: Study, roster: Roster, trust: RosterTrust) -> None:
        """Refuse a roster in which a site is not who it says, or too many may be invented.

        Guarantee: with the default bound, at most as many sites of this one's group are unknown as
        the study tolerates colluding sites; with any bound, no site that this hospital, or one it
        has checked, vouches for stands there under another key.

        Raises:
            PolicyError: the sentence names the sites, the bound and the remedy.
        """
        standings = trust.standings(study, roster)
        for standing in standings:
            if standing.against:
                raise PolicyError(_other_key(study, standing, trust.site), case="another-key")
        others = summed_with(study, trust.site)
        unknown = [one.site for one in standings if one.site in others and not one.vouched]
        vouched, needed = len(others) - len(unknown), self.vouched_needed(study)
        if vouched < needed:
            raise PolicyError(
                f"study {study.name}: {vouched} of the {len(others)} sites summed with this one "
                f"are vouched for, below this site's bound of {needed}, and the others could be "
                f"the coordinator's inventions ({_shortened(unknown)}); telephone them and run "
                "'consilium-site vouch HOSPITAL FINGERPRINT', or change [roster] vouched_at_least",
                case="unvouched",
            )

    def vouched_needed(self, study: Study) -> int:
        """Return how many of the sites summed with this one must be vouched for."""
        if self.vouched_at_least is None:
            return vouched_by_default(study)
        return self.vouched_at_least

    def check_time(self, now: datetime) -> None:
        """Refuse to begin work outside this hospital's hours; ``now`` is local time.

        A round that has begun is still finished, so that no other site's work is lost.

        Raises:
            PolicyError: outside the hours, which the sentence names.
        """
        if self.hours is not None and not self.hours.allow(now):
            raise PolicyError(
                f"this site takes part from {self.hours}, and its clock shows {now:%a %H:%M}; it "
                "joins the next round within these hours",
                case="hours",
            )

    def _check_privacy(self, study: Study) -> None:
        privacy = study.privacy
        if privacy.mode == "none" and not self.allow_without_privacy:
            raise PolicyError(
                "the study has no differential privacy and this site's policy requires it; "
                "set [privacy] mode in the study, or ask the site to allow it for public data",
                case="privacy",
            )
        if privacy.mode != "none" and privacy.epsilon > self.largest_study_epsilon:
            raise PolicyError(
                f"the study's epsilon {privacy.epsilon:g} is above this site's bound of "
                f"{self.largest_study_epsilon:g} a study; lower [privacy] epsilon or ask the site",
                case="epsilon",
            )
        if privacy.mode != "none" and privacy.delta > self.delta:
            raise PolicyError(
                f"the study's delta {privacy.delta:g} is above this site's bound of "
                f"{self.delta:g}; lower [privacy] delta or ask the site",
                case="delta",
            )

    def _check_data(self, study: Study) -> None:
        if study.task.kind not in self.tasks:
            raise PolicyError(
                f"the study's task {study.task.kind!r} is not one of {_listed(self.tasks)} that "
                "this site's policy allows; ask the site to add it to [data] tasks",
                case="task",
            )
        if self.sources is not None and study.data.source not in self.sources:
            raise PolicyError(
                f"the study's source {study.data.source!r} is not one of {_listed(self.sources)} "
                "that this site's policy allows; ask the site to add it to [data] sources",
                case="source",
            )
        if self.variables is not None:
            beyond = sorted(study.variables.keys() - self.variables)
            if beyond:
                raise PolicyError(
                    f"the study uses {_shortened(beyond)}, which this site's policy does "
                    "not allow; leave them out or ask the site to add them to [data] variables",
                    case="variables",
                )


def _listed(names: frozenset[str]) -> str:
    return ", ".join(sorted(names)) or "none"


def _shortened(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if names[5:] else "")


def _other_key(study: Study, standing: Standing, us: str) -> str:
    site = standing.site
    whose = "this site" if us in standing.against else " and ".join(standing.against)
    remedy = (
        f"if its key has truly changed, run 'consilium-site vouch --withdraw {site}' and vouch "
        "for the new one"
        if us in standing.against
        else f"if the roster is right, run 'consilium-site vouch {site} FINGERPRINT'"
    )
    return (
        f"study {study.name}: its roster shows {site} under ANOTHER KEY than the one {whose} "
        f"checked, so somebody may stand in for {site}; telephone {site} before anything else, and "
        f"{remedy}"
    )
