"""The search for what must not be sent finds what is sent each time, and nothing that is chance."""

from tests.simulations.watching import MOST_RUNS, as_numbers, sent_in_every_run


def test_what_every_run_sends_is_found_though_its_bytes_differ() -> None:
    seen: list[bytes] = []

    def run(number: int) -> dict:
        seen.append(b"before" + as_numbers("risk", 0.3 + number)["risk", ">f8"] + b"after")
        return as_numbers("risk", 0.3 + number)

    assert sent_in_every_run(run, seen) == {("risk", ">f8")}


def test_what_one_run_has_by_chance_is_not_found_and_costs_one_run_more() -> None:
    seen: list[bytes] = []
    runs: list[int] = []

    def run(number: int) -> dict:
        runs.append(number)
        seen.append(b"a mask with word in it" if number == 0 else b"another mask")
        return {"name": b"word"}

    assert sent_in_every_run(run, seen) == set()
    assert runs == [0, 1]
    assert MOST_RUNS > 2
