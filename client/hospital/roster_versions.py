"""Whether this hospital may agree to another set of sites for a study, and take it over.

Guarantee: a roster that passes :func:`check_next` and :func:`check_trust` follows the one in force
here; each hospital that stays has its key and size in it; each that joins is vouched for here as
the policy asks, and declared its size; and the study's numbers hold with the new number of sites.
Nothing here reads a record.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from consilium.client.hospital.approvals import Approval
from consilium.client.hospital.policy import Policy
from consilium.client.hospital.roster_trust import RosterTrust
from consilium.shared.audit.events import Approved, RosterAgreed, RosterInForce
from consilium.shared.audit.reading import RosterEvent
from consilium.shared.crypto.keys import Roster
from consilium.shared.enrolment.messages import roster_digest
from consilium.shared.enrolment.roster_version import (
    FIRST,
    RosterVersion,
    changes_in_words,
    members_digest,
)
from consilium.shared.errors import PolicyError
from consilium.shared.rounds.contents import check_size
from consilium.shared.study.definition import Study


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What this site's log says of a study's rosters.

    Attributes:
        number: of the newest roster that it took over.
        least: of the version that may follow the roster in force: that number again, since the
            process may have ended between the log and the approval, but not after an approval.
        agreed: of the newest roster that it agreed to or took over, and that roster's digest.
    """

    number: int = FIRST
    least: int = FIRST
    agreed: tuple[int, bytes] = (FIRST, b"")

    @classmethod
    def of(cls, events: Sequence[RosterEvent]) -> "Seen":
        """Read it from the log's events about the study, in order."""
        number, least, agreed = FIRST, FIRST, (FIRST, b"")
        for event in events:
            if isinstance(event, Approved):
                least = number + 1
            if isinstance(event, RosterInForce):
                number = least = max(number, event.version)
            if isinstance(event, RosterAgreed | RosterInForce):
                agreed = max(agreed, (event.version, event.roster))
        return cls(number=number, least=least, agreed=agreed)


@dataclass(frozen=True, kw_only=True)
class NextRoster:
    """A version that may follow the roster in force here.

    Attributes:
        version: as the coordinator signed it.
        study: the study among the sites that it would have.
        roster: those sites, with all sizes.
        joined: sites that it adds; ``left`` those that it takes away, perhaps this one.
        staying: identity (32 bytes) of each site that stays.
    """

    version: RosterVersion
    study: Study
    roster: Roster
    joined: tuple[str, ...]
    left: tuple[str, ...]
    staying: dict[str, bytes]

    @property
    def digest(self) -> bytes:
        """The digest by which audit logs and reports name it: of names, identities and sizes."""
        return roster_digest(self.roster)

    @property
    def in_words(self) -> str:
        """Who joins and who leaves."""
        return changes_in_words(self.joined, self.left)


def check_next(
    approval: Approval, version: RosterVersion, coordinator: bytes, seen: Seen
) -> NextRoster:
    """Check a version against the roster in force here and all that this site agreed to.

    Args:
        approval: the study and its roster in force here.
        version: as it came.
        coordinator: the pinned identity (32 bytes).
        seen: from this site's log.

    Raises:
        AuthenticationError: a signature is missing.
        PolicyError: it does not follow the roster in force here, is older than one that this site
            agreed to, changes the key or the size of a site that stays, or changes no site; or the
            study leaves a part of the model at its sites.
        StudyError: the study's numbers do not hold with these sites, or a size is not allowed.
    """
    study, number = approval.study, version.number
    what = f"roster {number} of study {study.name}"
    roster = version.check(coordinator)
    if version.study != study.digest:
        raise PolicyError(f"{what}: is of another study; ask the coordinator's operator")
    newest, agreed = seen.agreed
    if number < newest or (number == newest and roster_digest(roster) != agreed):
        raise PolicyError(
            f"{what}: this site agreed to roster {newest} before, and agrees to "
            f"{'no older one' if number < newest else 'no other one of that number'}; ask the "
            "coordinator's operator, who can propose it anew"
        )
    if version.before != members_digest(approval.roster):
        raise PolicyError(
            f"{what}: does not follow the roster in force here; compare the roster's fingerprints "
            "at both ends"
        )
    known, then = dict(approval.roster.members), dict(roster.members)
    for site in known.keys() & then.keys():
        if known[site] != then[site]:
            raise PolicyError(
                f"{what}: shows site {site} under another key than the one approved here; a new "
                "key comes with the hospital's recovery code, never with a new roster; telephone "
                f"{site}",
                case="another-key",
            )
        if approval.sizes.get(site, roster.sizes[site]) != roster.sizes[site]:
            raise PolicyError(
                f"{what}: shows {roster.sizes[site]} patients of site {site}, which declared "
                f"{approval.sizes[site]}; a declared size never changes",
                case="size",
            )
    joined, left = sorted(then.keys() - known.keys()), sorted(known.keys() - then.keys())
    if not joined and not left:
        raise PolicyError(f"{what}: has the sites that the study has already")
    study.check_roster_may_change()
    among = study.among(roster.names)
    for site, patients in roster.sizes.items():
        check_size(among, site, patients)
    return NextRoster(
        version=version,
        study=among,
        roster=roster,
        joined=tuple(joined),
        left=tuple(left),
        staying={site: known[site] for site in known if site in then},
    )


def check_trust(following: NextRoster, policy: Policy, trust: RosterTrust) -> None:
    """Refuse a version that this hospital's policy does not allow, or with an unknown joiner.

    A new study may have as many unknown sites as it tolerates colluding ones. A joiner may not be
    one of them, or a coordinator could add its own to a study that was approved without any. A
    hospital whose policy sets ``vouched_at_least`` has decided that itself.

    Raises:
        PolicyError: one sentence with the site, the bound and the remedy.
    """
    study = following.study
    policy.check_study(study)
    policy.check_roster(study, following.roster, trust)
    vouched = {one.site for one in trust.standings(study, following.roster) if one.vouched}
    unknown = [site for site in following.joined if site not in vouched]
    if unknown and policy.vouched_at_least is None:
        raise PolicyError(
            f"study {study.name}: nobody vouched for site {unknown[0]}, which is to join it, so it "
            "could be the coordinator's invention; telephone it and run 'consilium-site vouch "
            f"{unknown[0]} FINGERPRINT'",
            case="unvouched",
        )


def check_rule(following: NextRoster, policy: Policy) -> None:
    """Refuse what this hospital's rule leaves to a person.

    Raises:
        PolicyError: the policy has no such rule, or a joiner would weigh more than any site so far.
    """
    name = following.study.name
    if not policy.members_by_rule:
        raise PolicyError(
            f"roster {following.version.number} of study {name} ({following.in_words}) waits for "
            f"a person here: run 'consilium-site roster {name}'"
        )
    most = max(following.roster.sizes[site] for site in following.staying)
    for site in following.joined:
        if following.roster.sizes[site] > most:
            raise PolicyError(
                f"roster {following.version.number} of study {name}: site {site} would join with "
                f"{following.roster.sizes[site]} patients, more than any that stays ({most}), so "
                f"it waits for a person here: run 'consilium-site roster {name}'"
            )
