"""What each hospital gained by joining: its own model against the federation's, on its patients.

The hospital's own model is trained without privacy, on just the records that it brought to the
federation: so what privacy costs it is counted, too.
"""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from consilium.client.records.features import TimeGrid
from consilium.server.figures.verdicts import Verdict
from consilium.shared.study.definition import Study, with_changes
from consilium.simulations.cohorts.cohorts import Cohorts
from consilium.simulations.figures.central import merge, train_centrally
from consilium.simulations.figures.held_out import HeldOut, Scores
from consilium.simulations.figures.measures import FIGURES, TITLES
from consilium.simulations.figures.metrics import LOWER_IS_BETTER, compare_two
from consilium.simulations.figures.subgroups import judged

Joining = dict[str, Any]


def joining(
    study: Study, cohorts: Cohorts, test: HeldOut, scores: Scores, training: Mapping[str, TimeGrid]
) -> Joining:
    """Return what each hospital gained by joining, as ``run.json`` has it.

    Args:
        study: what the federation ran.
        cohorts: says who would train alone, and on which sites' records.
        test: the test patients; if it is not known whose they are, all are used for each hospital.
        scores: the federation's model's, of each test stay.
        training: each site's training records.
    """
    plain = with_changes(study, privacy={"mode": "none"})
    figure = FIGURES[study.task.kind][0]
    sites: list[dict[str, Any]] = []
    for name, held in cohorts.alone.items():
        own = test.scores(
            train_centrally(plain, merge([training[site] for site in held]), who=name)
        )
        known = name in test.groups and len(test.groups) > 1
        stays_N = np.ones(len(own), dtype=np.bool_)
        if known:
            stays_N = test.group_N == test.groups.index(name)
        truth = test.truth_of(stays_N)
        local, federated, gain = compare_two(own[stays_N], scores[stays_N], truth, seed=study.seed)
        sites.append(
            {
                "site": name,
                "trained_on": list(held),
                "tested_on": name if known else "all",
                "patients": len(np.unique(truth.patient_R)),
                "judged": judged(test, stays_N),
                "local": asdict(local),
                "federated": asdict(federated),
                "gain": asdict(gain),
            }
        )
    return {
        "figure": figure,
        "higher_is_better": figure not in LOWER_IS_BETTER,
        "sites": sites,
    }


def joining_verdicts(found: Joining) -> tuple[Verdict, ...]:
    """Return verdicts on who lost beyond chance, and on how many gained, of the judged sites."""
    title = TITLES[found["figure"]]
    sites = [site for site in found["sites"] if site.get("judged", True)]
    lost = tuple(
        Verdict(
            topic="joining",
            kind="site",
            name=site["site"],
            serious=True,
            sentence=f"Joining did not pay for {site['site']}: {title} "
            f"{site['local']['value']:.2f} with its own model, {site['federated']['value']:.2f} "
            f"with the federation's (better by {site['gain']['value']:.2f}, "
            f"{site['gain']['low']:.2f} to {site['gain']['high']:.2f}).",
        )
        for site in sites
        if site["gain"]["high"] < 0
    )
    sure = sum(site["gain"]["low"] > 0 for site in sites)
    better = sum(site["gain"]["value"] > 0 for site in sites)
    return (
        *lost,
        Verdict(
            topic="joining",
            kind="all",
            name="all",
            serious=False,
            sentence=f"The federation's model has the better {title} at {better} of {len(sites)} "
            f"hospitals, at {sure} of them beyond what chance explains.",
        ),
    )
