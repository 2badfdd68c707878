"""The four answers at the top of a report follow from the record, and hide nothing."""

from typing import Any

from consilium.simulations.report.checks import checks
from consilium.simulations.report.groups import read_groups
from consilium.simulations.report.summary import answers
from tests.simulations.report.made_up import demo_study, estimate, group, record_of

STUDY = demo_study()
PLAIN = record_of(demo_study(privacy={"mode": "none"}))


def told(record: dict[str, Any], settings: dict[str, Any] | None = None) -> dict[str, str]:
    found = answers(STUDY, record, read_groups(record), settings, "patients")
    return {a.question: " ".join((a.headline, *a.support)) for a in found}


def test_planted_failures_stand_in_the_summary_and_fail_their_conditions() -> None:
    verdict = {"topic": "calibration", "kind": "site", "name": "hospital-2", "serious": True,
               "sentence": "Risks are too low in hospital-2."}  # fmt: skip
    small = group("subgroup", "under 18") | {"judged": False, "figures": None}
    groups = [group("all", "all", seed=6, lift=1.6), small]
    record = record_of(STUDY, groups=groups, verdicts=[verdict])
    said = told(record)
    assert "SYNTHETIC" in said["Is it good here?"]
    assert "On average risks are too low" in said["Is it good here?"]
    assert "1 finding that someone should act on" in said["For whom does it fail?"]
    assert "Risks are too low in hospital-2." in said["For whom does it fail?"]
    assert "Not judged, too few patients: under 18." in said["For whom does it fail?"]
    assert "Not measured" in said["What did privacy cost?"]
    assert "Not on this evidence. 3 of 8 conditions failed" in said["May we deploy it?"]


def test_nothing_that_is_open_counts_as_shown() -> None:
    record = record_of(STUDY, synthetic=False, groups=[group("all", "all", seed=8)])
    states = {c.what: c.state for c in checks(STUDY, record, read_groups(record), None)}
    assert states["Judged on real patients"] == "shown"
    assert states["Works for every hospital and group of patients"] == "open"
    assert list(states.values()).count("open") >= 6
    assert told(record)["For whom does it fail?"].startswith("Not known")
    assert told(record)["May we deploy it?"].startswith("Not on this evidence.")
    small = group("subgroup", "under 18") | {"judged": False, "figures": None}
    record = record_of(STUDY, groups=[group("all", "all", seed=8), small])
    assert "every group is too small" in told(record)["For whom does it fail?"]


def test_the_cost_of_privacy_is_the_difference_to_the_same_federation_without() -> None:
    better = PLAIN["test"] | {"auroc": estimate(0.85)}
    simple = PLAIN["test"] | {"auroc": estimate(0.75)}
    settings = {
        "logistic-regression": PLAIN | {"test": simple},
        "pooled": PLAIN | {"test": better},
        "federated": PLAIN | {"test": better},
    }
    said = told(record_of(STUDY), settings)
    assert said["What did privacy cost?"].startswith("0.050 of AUROC lost against the same")
    assert (
        "A logistic regression has AUROC 0.750 (0.730 to 0.770), less good; noise was not judged."
        in (said["Is it good here?"])
    )
    worse = {"logistic-regression": PLAIN | {"test": better}}
    assert "no worse" in told(record_of(STUDY), worse)["Is it good here?"]


def test_whether_a_simple_model_is_as_good_follows_from_the_difference_and_its_noise() -> None:
    def check(low: float, high: float) -> tuple[str, str]:
        gain = {"value": (low + high) / 2, "low": low, "high": high}
        worst = {"auroc": {"value": 0.2, "low": 0.1, "high": 0.3}}
        against = {"gradient-boosting": {"auroc": gain}, "ridge-regression": worst}
        settings = {
            "ridge-regression": PLAIN | {"test": PLAIN["test"] | {"auroc": estimate(0.6)}},
            "gradient-boosting": PLAIN | {"test": PLAIN["test"] | {"auroc": estimate(0.82)}},
            "local": PLAIN | {"against": {"gradient-boosting": {"auroc": worst["auroc"]}}},
            "federated": PLAIN | {"against": against},
        }
        found = {c.what: c for c in checks(STUDY, PLAIN, (), settings)}
        return found["Better than a simple model"].state, found["Better than a simple model"].why

    state, why = check(-0.03, 0.01)
    assert (state, "no difference beyond noise" in why) == ("open", True)
    assert why.startswith("gradient boosting has AUROC 0.820 (0.800 to 0.840); ")
    assert why.endswith("(AUROC better by -0.010, -0.030 to 0.010)")
    assert check(0.01, 0.03)[0] == "shown"
    assert "this model is better" in check(0.01, 0.03)[1]
    assert check(-0.03, -0.01)[0] == "failed"
    assert "this model is worse" in check(-0.03, -0.01)[1]


def test_a_model_that_may_know_nothing_is_said_to() -> None:
    useless = record_of(STUDY)["test"] | {"auroc": estimate(0.51)}
    said = told(record_of(STUDY, test=useless))["Is it good here?"]
    assert "may know nothing" in said
    assert "drawn at random" not in said


def test_what_is_wrong_for_everybody_is_said_once_and_a_group_that_differs_by_itself() -> None:
    everybody, alike, apart = (
        group("all", "all") | {"calibration": estimate(1.3, 0.1)},
        group("site", "hospital-1") | {"calibration": estimate(1.4, 0.3)},
        group("site", "hospital-2") | {"calibration": estimate(2.5, 0.4)},
    )
    said = [
        {"topic": "calibration", "kind": g["kind"], "name": g["name"], "serious": True,
         "sentence": f"Risks are too low for {g['name']}."}
        for g in (everybody, alike, apart)
    ]  # fmt: skip
    record = record_of(STUDY, groups=[everybody, alike, apart], verdicts=said)
    whom = told(record)["For whom does it fail?"]
    assert whom.startswith(
        "1 finding that someone should act on. Risks are too low for hospital-2."
    )
    assert "Risks are too low for all. The same in hospital-1." in whom
    record = record_of(STUDY, groups=[everybody, alike], verdicts=said[:2])
    assert told(record)["For whom does it fail?"].startswith("For everybody alike")
    states = {c.what: c.state for c in checks(STUDY, record, read_groups(record), None)}
    assert states["Works for every hospital and group of patients"] == "shown"
    assert states["Risks that can be taken at their word"] == "failed"
