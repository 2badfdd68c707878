"""The register of sites: whose keys are whose."""

from pathlib import Path

import pytest

from consilium.server.coordinator.register import Register
from consilium.shared.errors import SettingsError


def enrol(register: Register, site: str, identity: bytes, node_key: bytes) -> None:
    register.invite(site, b"secret", expires=2.0)
    register.enrol(site, identity=identity, node_key=node_key, node_id=1, version="0.1.0", now=1.0)


@pytest.mark.parametrize(("identity", "node_key"), [(b"i" * 32, b"new"), (b"j" * 32, b"node")])
def test_a_site_with_anothers_key_is_refused_and_the_other_stays(
    tmp_path: Path, identity: bytes, node_key: bytes
) -> None:
    register = Register(tmp_path / "register.sqlite")
    enrol(register, "north", b"i" * 32, b"node")
    with pytest.raises(SettingsError, match="another site enrolled with one of these keys"):
        enrol(register, "east", identity, node_key)
    (member,) = register.members()
    assert (member.name, member.identity) == ("north", b"i" * 32)


def test_a_revoked_site_enrols_again_in_its_own_place(tmp_path: Path) -> None:
    register = Register(tmp_path / "register.sqlite")
    enrol(register, "north", b"i" * 32, b"node")
    register.revoke("north", now=1.5)
    enrol(register, "north", b"i" * 32, b"other")
    (member,) = register.members()
    assert member.revoked is None
