"""The samples of one channel: filtered with no shift in time, and at the study's rate."""

from fractions import Fraction

import numpy as np
from numpy.typing import NDArray
from scipy.signal import butter, iirnotch, resample_poly, sosfiltfilt, tf2sos

from consilium.client.sources.recorded.record_settings import FilterSettings
from consilium.shared.study.definition import Study


def filtered(
    samples: NDArray[np.float64], rate: float, wanted: FilterSettings
) -> NDArray[np.float64]:
    """Return samples without what the settings say, with no shift in time (run both ways).

    Raises:
        ValueError: a frequency is not below half the rate, or the record is too short.
    """
    for name in ("low_hz", "high_hz", "notch_hz"):
        edge = getattr(wanted, name)
        if edge is not None and not edge < rate / 2:
            raise ValueError(f"{name} {edge:g} is not below half the rate")
    stages = []
    if wanted.low_hz is not None:
        stages.append(butter(wanted.order, wanted.low_hz, "highpass", fs=rate, output="sos"))
    if wanted.high_hz is not None:
        stages.append(butter(wanted.order, wanted.high_hz, "lowpass", fs=rate, output="sos"))
    if wanted.notch_hz is not None:
        stages.append(tf2sos(*iirnotch(wanted.notch_hz, 30.0, fs=rate)))
    for sos in stages:
        samples = np.asarray(sosfiltfilt(sos, samples), dtype=np.float64)
    return samples


def ratio_of(rate: float, study: Study) -> Fraction:
    """Return how many samples the study has for one of a channel at that rate."""
    ratio = Fraction(float(study.data.rate_hz or rate) / rate).limit_denominator(1000)
    return ratio or Fraction(1)


def resampled(samples: NDArray[np.float64], rate: float, study: Study) -> NDArray[np.float64]:
    """Return samples at the study's rate."""
    ratio = ratio_of(rate, study)
    if ratio == 1:
        return samples
    return np.asarray(resample_poly(samples, ratio.numerator, ratio.denominator), dtype=np.float64)
