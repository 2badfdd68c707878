"""The tests of one release: each runs the site's code, and returns findings with their power."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2, norm

from consilium.client.records.cohort import Cohort
from consilium.simulations.experiments import noise_tests
from consilium.simulations.experiments.audit_findings import AuditVerdict, Finding, verdict
from consilium.simulations.experiments.audited_release import Release
from consilium.simulations.experiments.noise_tests import Draws, Interval

NUMBERS = 20_000  # of noise, at least
FEWER_NUMBERS = 1500  # where its size alone is measured
FEWEST_DRAWS, MOST_DRAWS = 4, 4000
PAIRS = 24  # of draws with and without the canary; even
SAMPLED_DRAWS = 100
CONTROL_ROUNDING = 0.01
SLACK = 1e-4  # relative: clipping and rounding in float32
OTHER_SHAPE = 0.05  # distance of a uniform or Laplace distribution from a Gaussian of its size


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Findings, and the measured figure that later bounds are made of, in shares of the claim."""

    findings: tuple[Finding, ...]
    share: Interval


def measure_noise(
    release: Release, blank: Cohort, folder: Path, level: float, *, size_alone: bool = False
) -> Measured:
    """Measure one site's noise on patients who contribute nothing: size, mean, shape, independence.

    Args:
        release: as the study makes it.
        blank: patients whose part of the release is zero.
        folder: for a site's own part of the model; nothing is kept there.
        level: probability of an error in each finding.
        size_alone: measure the size alone, on fewer numbers; the noise is drawn as another
            release's, which is measured in full.
    """
    numbers = FEWER_NUMBERS if size_alone else NUMBERS
    first = next(release.draws(blank, folder))
    count = min(MOST_DRAWS, max(FEWEST_DRAWS, math.ceil(numbers / first.size)))
    draws = release.matrix(blank, folder, count + count % 2)
    found = noise_tests.deviation(draws, level)
    least = release.noise - 2 * (found.high - found.estimate)
    size = Finding(
        release=release.name,
        what="noise, standard deviation",
        claimed=release.noise,
        measured=found.estimate,
        low=found.low,
        high=found.high,
        verdict=verdict(refuted=found.high < release.noise, powerful=least > release.noise / 2),
        convicts=f"below {least:.3g}",
    )
    share = Interval(
        low=found.low / release.noise,
        estimate=found.estimate / release.noise,
        high=found.high / release.noise,
    )
    others = (
        () if found.estimate == 0 or size_alone else _nature(release, draws, blank, folder, level)
    )
    return Measured(findings=(size, *others), share=share)


def _nature(
    release: Release, draws: Draws, blank: Cohort, folder: Path, level: float
) -> tuple[Finding, ...]:
    """Return findings on mean, shape and independence of noise."""
    center = noise_tests.mean(draws, level)
    wide = center.high - center.estimate
    distance = noise_tests.distance_from_normal(draws)
    most = noise_tests.largest_distance(draws.size, level)
    other_site = release.matrix(blank, folder, len(draws) // 2, site=1)
    alike = noise_tests.largest_correlation(
        [
            (draws[0::2], draws[1::2]),
            (draws[: len(other_site)], other_site),
            (draws[:, :-1], draws[:, 1:]),
        ],
        level,
    )
    apart = alike.high - alike.estimate
    return (
        Finding(
            release=release.name,
            what="noise, mean in deviations",
            claimed=0.0,
            measured=center.estimate,
            low=center.low,
            high=center.high,
            verdict=verdict(refuted=not center.low <= 0 <= center.high, powerful=wide < 0.5),
            convicts=f"beyond {2 * wide:.2g}",
        ),
        Finding(
            release=release.name,
            what="noise, distance from Gaussian",
            claimed=0.0,
            measured=distance,
            low=max(0.0, distance - most),
            high=distance + most,
            verdict=verdict(refuted=distance > most, powerful=2 * most < OTHER_SHAPE),
            convicts=f"beyond {2 * most:.2g} (Laplace, uniform: 0.06)",
        ),
        Finding(
            release=release.name,
            what="noise, correlation",
            claimed=0.0,
            measured=alike.estimate,
            low=alike.low,
            high=alike.high,
            verdict=verdict(refuted=not alike.low <= 0 <= alike.high, powerful=apart < 0.5),
            convicts=f"beyond {2 * apart:.2g} (one keystream for two: 1)",
        ),
    )


def measure_shift(
    release: Release,
    having: Draws,
    lacking: Draws,
    level: float,
    *,
    what: str,
    exceeds: float,
) -> Measured:
    """Measure how far one patient moves a release, and the noise beside other patients.

    Args:
        release: made with little noise.
        having: draws of it with the canary among the patients.
        lacking: draws without.
        level: as :func:`measure_noise`.
        what: how many stays the canary has, in words.
        exceeds: the canary's part before it is bounded, over the bound; below 2 a bound that is
            twice too wide would not be seen.
    """
    found = noise_tests.shift(having, lacking, level)
    wide = max(found.high - found.estimate, found.estimate - found.low)
    seen = found.estimate / release.reach
    factor = (1 + 2 * wide / release.reach) / max(seen, 1e-9)
    shift = Finding(
        release=release.name,
        what=f"shift, {what}",
        claimed=release.reach,
        measured=found.estimate,
        low=found.low,
        high=found.high,
        verdict=verdict(
            refuted=found.low > release.reach * (1 + SLACK),
            powerful=exceeds >= 2 and factor <= 2,
        ),
        convicts=f"bounds {factor:.2f} times as wide",
    )
    rest, fitted = noise_tests.residuals(having, lacking)
    beside = noise_tests.deviation(rest, level, fitted=fitted)
    least = release.noise - 2 * (beside.high - beside.estimate)
    noise = Finding(
        release=release.name,
        what=f"noise beside {what}",
        claimed=release.noise,
        measured=beside.estimate,
        low=beside.low,
        high=beside.high,
        verdict=verdict(refuted=beside.high < release.noise, powerful=least > release.noise / 2),
        convicts=f"below {least:.3g}",
    )
    share = Interval(low=found.low / release.reach, estimate=seen, high=found.high / release.reach)
    return Measured(findings=(shift, noise), share=share)


def measure_sampling(
    release: Release,
    canaries: Cohort,
    direction_D: NDArray[np.float64],
    folder: Path,
    level: float,
) -> Measured:
    """Count how many of many equal canaries a training round samples; it must be binomial.

    Args:
        release: made with little noise, and the study's own sampling.
        canaries: patients of equal gradients, and no others.
        direction_D: what one of them adds, in clip norms.
        folder: as :func:`measure_noise`.
        level: as :func:`measure_noise`.
    """
    training = release.study.training
    trials, rate = canaries.training.patients * training.local_steps, training.sampling_rate
    squared = float(direction_D @ direction_D)
    counts = release.matrix(canaries, folder, SAMPLED_DRAWS) @ direction_D / squared
    variance, noise = float(counts.var(ddof=1)), release.noise**2 / squared
    wide = float(norm.isf(level / 2)) * math.sqrt(variance / len(counts)) / trials
    measured = float(counts.mean()) / trials
    share = Interval(low=measured - wide, estimate=measured, high=measured + wide)
    how_many = Finding(
        release=release.name,
        what="sampling rate",
        claimed=rate,
        measured=measured,
        low=share.low,
        high=share.high,
        verdict=verdict(
            refuted=share.low > rate * (1 + SLACK), powerful=rate + 2 * wide < min(1.0, 2 * rate)
        ),
        convicts=f"above {rate + 2 * wide:.3g}",
    )
    if rate == 1:
        return Measured(findings=(how_many,), share=share)
    binomial = trials * rate * (1 - rate)
    excess = (1 - 6 * rate * (1 - rate)) / binomial
    freedom = 2 / (2 / (len(counts) - 1) + max(0.0, excess) / len(counts))
    low, high = (
        (variance * freedom / chi2.isf(tail, freedom) - noise) / binomial
        for tail in (level / 2, 1 - level / 2)
    )
    least = chi2.isf(1 - level / 2, freedom) / freedom  # smallest ratio seen if all is honest
    most = chi2.isf(level / 2, freedom) / freedom
    spread = Finding(
        release=release.name,
        what="sampling, variance ratio",
        claimed=1.0,
        measured=(variance - noise) / binomial,
        low=low,
        high=high,
        verdict=AuditVerdict.CONSISTENT if low <= 1 <= high else AuditVerdict.CONVICTED,
        convicts=f"below {least**2:.2g} (fixed size: 0) or above {most**2:.2g}",
    )
    return Measured(findings=(how_many, spread), share=share)


def measure_control(release: Release, blank: Cohort, folder: Path) -> Finding:
    """Compare SCAFFOLD's control variate, which is not charged, with the update that is.

    Args:
        release: of updates, followed by control variates that begin at zero.
        blank: as :func:`measure_noise`.
        folder: as :func:`measure_noise`.
    """
    update_D, control_D = np.split(next(release.draws(blank, folder)), 2)
    apart = float(np.abs(update_D + control_D).max()) / release.noise
    return Finding(
        release=release.name,
        what="control variate + update",
        claimed=0.0,
        measured=apart,
        low=apart,
        high=apart,
        verdict=verdict(refuted=apart > CONTROL_ROUNDING, powerful=True),
        convicts=f"beyond {CONTROL_ROUNDING:g}, rounding",
    )
