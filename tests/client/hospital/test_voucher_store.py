"""The vouchers in a folder: kept over restarts, never older, never another hospital's."""

import stat
import threading
from pathlib import Path

import pytest

from consilium.client.hospital.voucher_check import voucher_disagreements
from consilium.client.hospital.voucher_store import VoucherStore
from consilium.shared.audit.events import AuditEvent, Vouched, VouchersTaken
from consilium.shared.audit.log import AuditLog
from consilium.shared.crypto.transcript import sha256
from consilium.shared.enrolment.vouchers import Vouchers
from consilium.shared.errors import AuthenticationError, PolicyError, SettingsError
from tests.client.vouching import INVENTED, KEYS, prints, signed


class Site:
    """A hospital's store and log; every change is recorded as the command does."""

    def __init__(self, folder: Path, name: str = "north") -> None:
        self.now = 1000.0
        self.store = VoucherStore(folder / "vouchers", name, KEYS[name], clock=lambda: self.now)
        self.log = AuditLog(folder / "audit.jsonl", owner=name, key=KEYS[name], version="0.1.0")
        self.recorded: list[AuditEvent] = []

    def note(self, event: AuditEvent) -> None:
        self.log.append(event)
        self.recorded.append(event)

    def vouch(self, name: str, print_: bytes | None = None) -> bool:
        found = prints(name)[name] if print_ is None else print_
        event = Vouched(hospital=name, fingerprint=found, vouched=True, by="dr")
        return self.store.vouch(name, found, recorded=lambda: self.note(event))

    def withdraw(self, name: str) -> None:
        self.store.withdraw(
            name,
            recorded=lambda known: self.note(
                Vouched(hospital=name, fingerprint=known, vouched=False, by="dr")
            ),
        )

    def take(self, given: Vouchers | bytes) -> Vouchers:
        content = given if isinstance(given, bytes) else given.to_bytes()
        return self.store.take(content, recorded=lambda one: self.note(self._taken(one, content)))

    def differences(self) -> list[str]:
        return voucher_disagreements(self.store, self.log.path)

    @staticmethod
    def _taken(one: Vouchers, content: bytes) -> VouchersTaken:
        return VouchersTaken(
            signer=one.site,
            signer_identity=one.identity,
            issued=one.issued,
            list_digest=sha256(content),
            by="dr",
        )


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_a_folder_of_an_earlier_build_vouches_for_nobody(site: Site) -> None:
    assert not site.store.folder.exists()
    assert (site.store.trust().own, site.store.trust().given) == ({}, {})
    assert site.store.own_list() is None
    assert site.differences() == []


def test_a_voucher_is_kept_signed_private_and_readable_by_others_of_the_study(
    site: Site, tmp_path: Path
) -> None:
    assert site.vouch("south")
    assert site.vouch("east")
    assert not site.vouch("east")
    again = VoucherStore(tmp_path / "vouchers", "north", KEYS["north"])
    assert again.trust().own == prints("south", "east")
    made = again.own_list()
    assert made is not None
    made.check()
    file = tmp_path / "vouchers" / "north.vouchers"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert len(site.recorded) == 2


def test_another_fingerprint_takes_no_ones_place_without_a_withdrawal(site: Site) -> None:
    site.vouch("south")
    with pytest.raises(SettingsError, match=r"with another fingerprint, .*--withdraw south"):
        site.vouch("south", bytes(16))
    site.withdraw("south")
    assert site.vouch("south", bytes(16))
    assert site.store.trust().own == {"south": bytes(16)}
    assert site.differences() == []


def test_a_site_vouches_neither_for_itself_nor_twice_against(site: Site) -> None:
    with pytest.raises(SettingsError, match="is this site"):
        site.vouch("north")
    with pytest.raises(SettingsError, match="is not vouched for"):
        site.withdraw("south")
    assert site.recorded == []
    assert not (site.store.folder / "north.vouchers").exists()


def test_a_change_that_cannot_be_recorded_does_not_happen(site: Site) -> None:
    def fail() -> None:
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="disk"):
        site.store.vouch("south", bytes(16), recorded=fail)
    assert site.store.trust().own == {}


def test_each_list_is_later_than_the_one_before_though_the_clock_goes_back(site: Site) -> None:
    issued = []
    for name, now in (("south", 1000.0), ("east", 5.0), ("west", 1001.0), ("hill", 2000.0)):
        site.now = now
        site.vouch(name)
        made = site.store.own_list()
        assert made is not None
        issued.append(made.issued)
    assert issued == [1000, 1001, 1002, 2000]


def test_the_list_of_a_hospital_that_we_checked_is_taken_and_a_newer_one_replaces_it(
    site: Site,
) -> None:
    site.vouch("south")
    assert site.take(signed("south", "east", "west", issued=5)).site == "south"
    site.take(signed("south", "east", "west", issued=5))  # the same again changes nothing
    assert len(site.recorded) == 2
    site.take(signed("south", "west", issued=6))
    assert site.store.trust().given["south"].fingerprints == prints("west")
    assert site.differences() == []


def test_a_withdrawn_voucher_is_not_brought_back_by_an_older_list(site: Site) -> None:
    site.vouch("south")
    older = signed("south", "east", issued=5)
    site.take(older)
    site.take(signed("south", issued=6))
    for replayed in (older, signed("south", "east", issued=6)):
        with pytest.raises(SettingsError, match="older than those that are here, or of the same"):
            site.take(replayed)
    assert site.store.trust().given["south"].fingerprints == {}


def test_lists_of_strangers_stand_ins_and_forgers_are_refused(site: Site) -> None:
    site.vouch("south")
    forged = signed("south", "east")
    forged = Vouchers(**{**vars(forged), "fingerprints": prints("east", "west")})
    stand_in = Vouchers.signed("south", INVENTED["south"], prints("east"), issued=9)
    for given, error, sentence in (
        (signed("east", "south"), PolicyError, "east is not vouched for by this site, so its word"),
        (forged, AuthenticationError, "were altered or forged"),
        (stand_in, AuthenticationError, "another key than the one this site checked for south"),
        (signed("north", "south"), SettingsError, "this site's own vouchers"),
        (b"rubbish", SettingsError, "the file: holds no vouchers"),
    ):
        with pytest.raises(error, match=sentence):
            site.take(given)
    assert site.store.trust().given == {}


def test_a_file_that_is_damaged_or_under_another_name_is_refused(site: Site) -> None:
    site.vouch("south")
    site.take(signed("south", "east"))
    folder = site.store.folder
    (folder / "west.vouchers").write_bytes((folder / "south.vouchers").read_bytes())
    with pytest.raises(SettingsError, match="of another hospital or key than it is named after"):
        site.store.trust()
    (folder / "west.vouchers").unlink()
    stolen = Vouchers.signed("north", INVENTED["north"], prints("hill"), issued=9**9)
    (folder / "north.vouchers").write_bytes(stolen.to_bytes())
    with pytest.raises(SettingsError, match="of another hospital or key"):
        site.store.own_list()
    content = bytearray((folder / "south.vouchers").read_bytes())
    content[-1] ^= 1
    (folder / "south.vouchers").write_bytes(content)
    (folder / "north.vouchers").unlink()
    with pytest.raises(SettingsError, match=r"south\.vouchers: .* altered or forged"):
        site.store.trust()
    (folder / "south.vouchers").write_bytes(b"")
    with pytest.raises(SettingsError, match=r"south\.vouchers: holds no vouchers"):
        site.store.trust()


def test_a_folder_that_cannot_be_written_is_said_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "vouchers").touch()
    store = VoucherStore(tmp_path / "vouchers", "north", KEYS["north"])
    with pytest.raises(SettingsError, match="cannot be written"):
        store.vouch("south", bytes(16), recorded=lambda: None)


def test_several_that_vouch_at_once_lose_nothing(tmp_path: Path) -> None:
    names = ("south", "east", "west", "hill", "lake", "park")
    start = threading.Barrier(len(names))

    def vouch(name: str) -> None:
        store = VoucherStore(tmp_path / "vouchers", "north", KEYS["north"])
        start.wait()
        store.vouch(name, prints(name)[name], recorded=lambda: None)

    threads = [threading.Thread(target=vouch, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    store = VoucherStore(tmp_path / "vouchers", "north", KEYS["north"])
    assert store.trust().own == prints(*names)


def test_an_older_copy_put_back_is_noticed_and_the_named_command_mends_it(site: Site) -> None:
    site.vouch("south")
    site.vouch("east")
    own = site.store.folder / "north.vouchers"
    older = own.read_bytes()
    site.withdraw("east")
    site.take(signed("south", "west", issued=5))
    given = site.store.folder / "south.vouchers"
    given_older = given.read_bytes()
    site.take(signed("south", issued=6))
    assert site.differences() == []

    own.unlink()
    own.write_bytes(older)
    given.unlink()
    given.write_bytes(given_older)
    assert [sentence.split(":")[0] for sentence in site.differences()] == [
        "the vouchers of this site and its audit log differ on east",
        "the vouchers that south gave are not those that the audit log names last; ask it for its "
        "latest and run 'consilium-site vouch --import FILE', or vouch for it no longer",
    ]
    site.withdraw("east")
    site.take(signed("south", issued=6))
    assert site.differences() == []
    own.unlink()
    assert "differ on south" in site.differences()[0]
    site.vouch("south")
    assert site.differences() == []


def test_a_missing_list_of_a_hospital_that_we_no_longer_vouch_for_is_no_difference(
    site: Site,
) -> None:
    site.vouch("south")
    site.take(signed("south", "west"))
    (site.store.folder / "south.vouchers").unlink()
    assert "the vouchers that south gave" in site.differences()[0]
    site.withdraw("south")
    assert site.differences() == []


def test_lines_of_the_log_that_are_no_entries_are_left_to_its_own_check(site: Site) -> None:
    site.vouch("south")
    with site.log.path.open("ab") as log:
        log.write(b"{}\n")
    assert site.differences() == []
