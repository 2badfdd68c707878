"""Sessions end by themselves, with the person's entry, and belong to one cookie at one place."""

from pathlib import Path

import pytest

from consilium.shared.web.back_off import FREE_TRIES, LONGEST_S, BackOff
from consilium.shared.web.sessions import IDLE_S, MOST, Sessions
from consilium.shared.web.sessions import LONGEST_S as LONGEST_SESSION_S
from consilium.shared.web.users import User, Users

PASSWORD = "four words that rhyme"


class Clock:
    """Seconds that only a test lets pass."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def users(tmp_path: Path) -> Users:
    made = Users(tmp_path, ("steward", "it"), command="x", cost=2)
    made.set("anna", "steward", PASSWORD)
    return made


def anna(users: Users) -> User:
    found = users.find("anna")
    assert found is not None
    return found


def test_a_session_is_found_by_its_own_cookie_among_others_at_its_own_place(
    users: Users, clock: Clock
) -> None:
    sessions = Sessions(users, clock)
    one, cookie = sessions.begin(anna(users))
    other, other_cookie = sessions.begin(anna(users))
    assert sessions.find(one.place, ["planted", cookie]) is one
    assert sessions.find(one.place, [other_cookie]) is None
    assert sessions.find(other.place, [cookie]) is None
    assert sessions.find(one.place, []) is None
    assert sessions.find("elsewhere", [cookie]) is None
    assert len({one.place, one.token, other.place, other.token, cookie, other_cookie}) == 6
    assert cookie not in repr(vars(one))
    sessions.end(one.place)
    assert sessions.find(one.place, [cookie]) is None
    assert sessions.find(other.place, [other_cookie]) is other


def test_a_session_ends_without_a_click_and_at_last_with_clicks(users: Users, clock: Clock) -> None:
    sessions = Sessions(users, clock)
    one, cookie = sessions.begin(anna(users))
    for _ in range(int(LONGEST_SESSION_S / IDLE_S)):
        clock.now += IDLE_S
        assert sessions.find(one.place, [cookie]) is one
    clock.now += 1
    assert sessions.find(one.place, [cookie]) is None
    two, cookie = sessions.begin(anna(users))
    clock.now += IDLE_S + 1
    assert sessions.find(two.place, [cookie]) is None


@pytest.mark.parametrize("change", ["remove", "password", "role"])
def test_whoever_is_removed_or_changed_is_signed_out(
    users: Users, clock: Clock, change: str
) -> None:
    sessions = Sessions(users, clock)
    one, cookie = sessions.begin(anna(users))
    if change == "remove":
        users.remove("anna")
    elif change == "password":
        users.set("anna", "steward", PASSWORD)  # the same words, another salt
    else:
        users.set("anna", "it", PASSWORD)
    assert sessions.find(one.place, [cookie]) is None


def test_there_are_only_so_many_sessions(users: Users, clock: Clock) -> None:
    sessions = Sessions(users, clock)
    begun = []
    for _ in range(MOST + 1):
        clock.now += 1
        begun.append(sessions.begin(anna(users)))
    assert sessions.find(begun[0][0].place, [begun[0][1]]) is None
    assert all(sessions.find(one.place, [cookie]) is one for one, cookie in begun[1:])


def test_wrong_passwords_wait_ever_longer_up_to_a_minute_and_right_ones_forget(
    clock: Clock,
) -> None:
    back_off = BackOff(clock)
    waited = []
    for _ in range(FREE_TRIES + 8):
        assert back_off.begin("anna") == 0
        waited.append(back_off.wait_s("anna"))
        if waited[-1]:
            assert back_off.begin("anna") == waited[-1]  # not a try: it is not counted
        clock.now += waited[-1]
    assert waited == [0, 0, 1, 2, 4, 8, 16, 32, LONGEST_S, LONGEST_S, LONGEST_S]
    assert back_off.wait_s("bert") == 0
    back_off.succeeded("anna")
    assert back_off.begin("anna") == 0
    assert back_off.wait_s("anna") == 0
