"""A run's record as ``run.json`` holds it, made up in a moment: nothing was trained."""

from importlib.resources import files
from typing import Any

import numpy as np

from consilium.shared.figures.score_counts import count_scores, first_edges
from consilium.shared.study.definition import Study, parse_study, with_changes

EDGES = first_edges(200)
DEMO = files("consilium.studies").joinpath("demo.toml").read_text(encoding="utf-8")


def demo_study(**tables: dict[str, object]) -> Study:
    study = with_changes(parse_study(DEMO), study={"rounds": 4})
    return with_changes(study, **tables) if tables else study


def estimate(value: float, reach: float = 0.02) -> dict[str, float]:
    return {"value": value, "low": value - reach, "high": value + reach}


def group(kind: str, name: str, *, lift: float = 1.0, seed: int = 0) -> dict[str, Any]:
    """400 patients whose outcomes are ``lift`` times as frequent as their risks say."""
    stream = np.random.default_rng(seed)
    risks = 1 / (1 + np.exp(-stream.normal(-1.5, 1.2, 400)))
    outcomes = stream.random(400) < np.minimum(lift * risks, 1.0)
    counts = count_scores(risks, outcomes, np.ones(400), EDGES).astype(int).tolist()
    return {
        "kind": kind,
        "name": name,
        "variable": None,
        "patients": 400,
        "rows": 400,
        "positives": int(outcomes.sum()),
        "judged": True,
        "figures": {"auroc": estimate(0.8)},
        "expected": float(risks.sum()),
        "calibration": estimate(float(outcomes.sum() / risks.sum()), 0.1),
        "negatives": " ".join(map(str, counts[0])),
        "positives_by_bin": " ".join(map(str, counts[1])),
    }


def one_round(number: int, study: Study) -> dict[str, Any]:
    private = study.privacy.mode != "none"
    return {
        "round": number,
        "purpose": "training",
        "void": "too few sites" if number == 3 else None,
        "sites": list(study.sites),
        "refusals": {},
        "patients": 3000,
        "update_norm": 1.0,
        "epsilon": 2.0 * number if private else None,
        "seconds": 0.5 + 0.1 * number,
        "phases": {"keys": 0.01, "update": 0.4, "unmask": 0.05, "remove": 0.01},
        "bytes_up": dict.fromkeys(study.sites, 65_000),
        "bytes_down": dict.fromkeys(study.sites, 66_000),
        "validation": None,
        "test": {"auroc": 0.6 + 0.05 * number, "loss": 0.5 - 0.02 * number},
    }


def record_of(study: Study, **changes: Any) -> dict[str, Any]:
    private = study.privacy.mode != "none"
    figures = {"auroc": 0.8, "auprc": 0.5, "brier": 0.1, "accuracy": 0.88}
    return {
        "schema": 1,
        "study": study.name,
        "study_digest": study.digest.hex(),
        "study_declared": study.to_canonical_json().decode(),
        "software": "0.1.0",
        "synthetic": True,
        "test_cohort": "made-up patients",
        "rounds": [one_round(number, study) for number in range(1, 5)],
        "other_rounds": [],
        "test": {name: estimate(value) for name, value in figures.items()}
        | {"patients": 400, "rows": 400, "positives": 80},
        "bins": " ".join(f"{edge:.9g}" for edge in EDGES),
        "groups": [
            group("all", "all", seed=1),
            group("site", "hospital-1", seed=2),
            group("site", "hospital-2", seed=3, lift=2.0),
            group("subgroup", "female", seed=4),
        ],
        "privacy": {
            "mode": study.privacy.mode,
            "epsilon": 7.9 if private else None,
            "epsilon_budget": study.privacy.epsilon if private else None,
            "delta": study.privacy.delta if private else None,
            "unit": "patient",
        },
        "seconds": 3.0,
        "bytes_up_per_site_per_round": 65_000,
        "final_tables": {},
    } | changes
