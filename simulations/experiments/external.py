"""How a model does at a hospital it never saw: each hospital is left out in turn, and tested on.

The study is run again without the hospital, with privacy and secure sum as before. On the
hospital's test patients that model is compared with the one that includes the hospital, and with
the hospital's own.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from consilium.server.figures.verdicts import RATIO
from consilium.shared.errors import SettingsError, StudyError
from consilium.shared.study.definition import Study
from consilium.shared.study.rounds import MINIMUM_SITES
from consilium.simulations.cohorts.cohorts import Cohorts
from consilium.simulations.cohorts.study_sites import with_sites
from consilium.simulations.federation.run import Federation, Show
from consilium.simulations.figures.held_out import HeldOut, Scores
from consilium.simulations.figures.measures import FIGURES, TITLES
from consilium.simulations.figures.metrics import LOWER_IS_BETTER, compare_two
from consilium.simulations.figures.subgroups import calibration_of, judged

FOLDER = "external"
External = dict[str, Any]
Watch = Callable[[str, Study], Show]


def leave_one_out(study: Study, cohorts: Cohorts, test: HeldOut) -> dict[str, Study]:
    """Return, for each hospital, the study without it.

    Raises:
        SettingsError: it is not known to which hospital test patients belong.
        StudyError: too few sites are left for a secure sum.
    """
    testable = [name for name in cohorts.alone if name in test.groups and len(test.groups) > 1]
    if not testable:
        raise SettingsError(
            f"study {study.name}: its test patients are not told apart by hospital, so none can be "
            "left out and tested on; run it without --external"
        )
    return {name: _without(study, cohorts.alone[name]) for name in testable}


def external(
    study: Study,
    cohorts: Cohorts,
    test: HeldOut,
    scores: Scores,
    joined: Mapping[str, Any] | None,
    out: Path,
    *,
    workers: int,
    protocol: bool = False,
    watch: Watch,
) -> External:
    """Return how models do at the hospital each was trained without, as ``run.json`` has it.

    Args:
        study: what the federation ran.
        cohorts: every site's records.
        test: the test patients, by hospital.
        scores: the federation's model's, of each test stay.
        joined: as :func:`consilium.simulations.experiments.joining.joining` returned it, if it was
            asked for.
        out: gets a folder for each hospital left out; a finished one is kept.
        workers: sites that train at the same time.
        protocol: whether the whole secure sum runs; otherwise vectors are added as they are.
        watch: called when a training begins; returns a function to call with each round's record.

    Raises:
        ConsiliumError: as :func:`leave_one_out`, or a study without one hospital cannot be run.
    """
    alone = {site["site"]: site["local"] for site in joined["sites"]} if joined else {}
    figure = FIGURES[study.task.kind][0]
    sites = []
    for name, less in leave_one_out(study, cohorts, test).items():
        records = {site: cohorts.sites[site] for site in less.sites}
        federation = Federation(
            less, records, out / FOLDER / name, workers=workers, protocol=protocol
        )
        finished = federation.train(watch(f"without {name}", less), replace(test, study=less))
        stays_N = test.group_N == test.groups.index(name)
        truth = test.truth_of(stays_N)
        outside, included, gain = compare_two(
            finished.scores[stays_N], scores[stays_N], truth, seed=study.seed
        )
        ratio = calibration_of(test, stays_N, finished.scores)
        sites.append(
            {
                "site": name,
                "trained_on": list(less.sites),
                "patients": int(truth.patient_R.max()) + 1,
                "judged": judged(test, stays_N),
                "local": alone.get(name),
                "external": asdict(outside),
                "federated": asdict(included),
                "gain": asdict(gain),
                "calibration": None if ratio is None else asdict(ratio),
            }
        )
    return {"figure": figure, "higher_is_better": figure not in LOWER_IS_BETTER, "sites": sites}


def external_sentences(found: Mapping[str, Any]) -> tuple[str, ...]:
    """Return sentences: the mean figure with hospitals left out and included, and the failures.

    Hospitals with too few patients are named, and not judged.
    """
    title, sites = TITLES[found["figure"]], [s for s in found["sites"] if s["judged"]]
    few = ", ".join(site["site"] for site in found["sites"] if not site["judged"])
    unjudged = (f"Not judged, too few patients: {few}.",) if few else ()
    if not sites:
        return unjudged
    means = {
        which: sum(site[which]["value"] for site in sites) / len(sites)
        for which in ("external", "federated")
    }
    return (
        f"At hospitals it did not learn from its {title} is {means['external']:.3f} on average, at "
        f"the same hospitals {means['federated']:.3f} when it learned from them, too "
        f"({len(sites)} left out in turn).",
        *failures(found),
        *unjudged,
    )


def failures(found: Mapping[str, Any]) -> Iterator[str]:
    """Yield a sentence for each hospital at which a model that never saw it fails.

    It fails if the model that includes the hospital is better, the interval of the difference lying
    above 0; or if observed / expected outcomes are above ``RATIO`` or below 1 / ``RATIO``, and
    their interval does not hold 1.
    """
    title = TITLES[found["figure"]]
    for site in found["sites"]:
        if not site["judged"]:
            continue
        gain, ratio = site["gain"], site["calibration"]
        if (gain["low"] or 0) > 0:
            yield (
                f"At {site['site']} a model that never saw it is worse: {title} "
                f"{site['external']['value']:.2f}, and {site['federated']['value']:.2f} when it is "
                f"included (better by {gain['low']:.2f} to {gain['high']:.2f})."
            )
        if ratio and ratio["value"] > 0:
            off = abs(math.log(ratio["value"])) > math.log(RATIO)
            if off and not ratio["low"] <= 1 <= ratio["high"]:
                side = "too low" if ratio["value"] > 1 else "too high"
                yield (
                    f"At {site['site']} the risks of a model that never saw it are {side}: "
                    f"{ratio['value']:.2f} outcomes for each one predicted ({ratio['low']:.2f} to "
                    f"{ratio['high']:.2f})."
                )


def _without(study: Study, left_out: tuple[str, ...]) -> Study:
    """Return the study of the other sites; bounds or groups that no longer fit take defaults."""
    rest = tuple(site for site in study.sites if site not in left_out)
    if len(rest) < MINIMUM_SITES:
        raise StudyError(
            f"study {study.name}: without {', '.join(left_out)} it has {len(rest)} sites, and a "
            f"secure sum needs {MINIMUM_SITES}; leaving hospitals out takes a study of more"
        )
    return with_sites(study, rest)
