"""Hospitals with keys, what they vouch for, and rosters that a coordinator made of them."""

from collections.abc import Mapping

from consilium.client.hospital.roster_trust import RosterTrust
from consilium.shared.crypto.keys import IdentityKey, Roster
from consilium.shared.crypto.transcript import digest
from consilium.shared.enrolment.fingerprint import fingerprint
from consilium.shared.enrolment.vouchers import Vouchers
from consilium.shared.study.definition import Study
from tests.study_text import small_study

HOSPITALS = ("north", "east", "south", "west", "hill", "lake", "park", "port", "dale")


def key_of(name: str, kind: str = "hospital") -> IdentityKey:
    return IdentityKey.from_seed(digest("test", name, kind))


KEYS = {name: key_of(name) for name in HOSPITALS}
INVENTED = {name: key_of(name, "coordinator") for name in HOSPITALS}


def prints(*names: str, keys: Mapping[str, IdentityKey] = KEYS) -> dict[str, bytes]:
    return {name: fingerprint(name, keys[name].public) for name in names}


def signed(by: str, *names: str, issued: int = 1) -> Vouchers:
    """What hospital ``by`` honestly vouches for."""
    return Vouchers.signed(by, KEYS[by], prints(*names), issued=issued)


def lying(by: str, *names: str, issued: int = 1) -> Vouchers:
    """What hospital ``by`` says if it vouches for the coordinator's inventions."""
    return Vouchers.signed(by, KEYS[by], prints(*names, keys=INVENTED), issued=issued)


def trust(*own: str, given: tuple[Vouchers, ...] = (), site: str = "north") -> RosterTrust:
    return RosterTrust(site=site, own=prints(*own), given={one.site: one for one in given})


def study(sites: int = 8, *, collusion: int = 1, groups: int = 1) -> Study:
    content = small_study().model_dump(by_alias=True) | {"sites": HOSPITALS[:sites]}
    content["aggregation"] |= {"tolerated_collusion": collusion, "groups": groups}
    return Study.model_validate(content)


def roster(sites: int = 8, *, invented: tuple[str, ...] = ()) -> Roster:
    """The roster of the first hospitals; the coordinator made the keys of some itself."""
    return Roster(
        tuple(
            (name, (INVENTED if name in invented else KEYS)[name].public)
            for name in sorted(HOSPITALS[:sites])
        )
    )
