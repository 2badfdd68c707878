"""What differs between the roster that a hospital approved and the one a study has now.

The same hospital under a new key is the one change that can be checked by rule: the former identity
and the recovery code that it was bound to both signed for it. Everything else is a person's to
decide.
"""

from collections.abc import Callable
from dataclasses import dataclass

from consilium.shared.audit.heads import AuditHead
from consilium.shared.crypto.keys import Roster
from consilium.shared.enrolment.recovery import Succession
from consilium.shared.errors import AuthenticationError, PolicyError

MOST_SUCCESSIONS = 16
"""More times in a row a hospital does not lose its machine between two looks at a roster."""


@dataclass(frozen=True, kw_only=True)
class NewKey:
    """A site stands in a roster under another identity than the one approved (32 bytes each).

    ``proofs`` lead from the one to the other, in order; empty if there are none.
    """

    site: str
    before: bytes
    after: bytes
    proofs: tuple[Succession, ...]


def new_keys(
    approved: Roster, offered: Roster, succession_of: Callable[[bytes], Succession | None]
) -> tuple[NewKey, ...]:
    """Return which sites stand under other identities, with the proofs that somebody shows.

    Args:
        approved: the roster as approved here.
        offered: one of the same sites.
        succession_of: returns what is shown for the successor of an identity; it may be false.

    Raises:
        PolicyError: the rosters are of different sites.
    """
    known = dict(approved.members)
    if known.keys() != set(offered.names):
        raise PolicyError("the roster now offered is of other sites than the one approved here")
    found = []
    for site, after in offered.members:
        if known[site] != after:
            proofs = _chain(known[site], after, succession_of)
            found.append(NewKey(site=site, before=known[site], after=after, proofs=proofs))
    return tuple(found)


def check_new_key(change: NewKey, newest: Callable[[bytes], AuditHead | None]) -> None:
    """Check that it is the same hospital, and that its budget went on from where it was.

    Guarantee: if this returns, the holder of the recovery code to which ``before`` is bound named
    ``after``, directly or through others, and each time certified the former log up to an entry
    that is no earlier than any this site has seen.

    Args:
        change: the new key, with what was shown for it.
        newest: returns the newest head that this site has seen of an identity's log.

    Raises:
        AuthenticationError: there is no proof, or one is of another site or key.
        PolicyError: the budget went on from an older certificate than this site has seen heads.
    """
    identity = change.before
    for proof in change.proofs:
        head = proof.check()
        if (proof.site, proof.binding.identity) != (change.site, identity):
            raise AuthenticationError(
                f"the proof shown for the new key of site {change.site} is of {proof.site} or of "
                "another key; telephone the hospital"
            )
        seen = newest(identity)
        if seen is not None and seen.number > head.number:
            raise PolicyError(
                f"site {change.site} came back with a budget certificate of entry {head.number} of "
                f"its audit log, and this site has seen entry {seen.number}: what it spent since "
                "would be forgotten; tell that hospital to recover again from its second place, "
                "with what 'consilium-site audit head' prints here"
            )
        identity = proof.identity
    if identity != change.after:
        raise AuthenticationError(
            f"site {change.site} is shown under a new key, and nothing proves that it is the same "
            f"hospital; telephone {change.site}: if its key has truly changed, vouch for the new "
            "one and accept the roster with 'consilium-site roster STUDY --accept'"
        )


def _chain(
    before: bytes, after: bytes, succession_of: Callable[[bytes], Succession | None]
) -> tuple[Succession, ...]:
    proofs: list[Succession] = []
    identity = before
    while identity != after and len(proofs) < MOST_SUCCESSIONS:
        found = succession_of(identity)
        if found is None:
            break
        proofs.append(found)
        identity = found.identity
    return tuple(proofs)
