"""Intervals of estimates over seeds: the jackknife, Wilson's interval of a fraction, added errors.

Sources: Efron & Tibshirani (1993), chapter 11, for the jackknife; Wilson (1927) for his interval.
"""

import math
from collections.abc import Sequence

import numpy as np

Interval = tuple[float, float]


TAIL = 0.025
"""The probability that a 95 % interval lies above the true value, and that it lies below."""

Z = 1.959964
"""The 97.5 % quantile of the normal distribution."""


def z_quantile(tail: float = TAIL) -> float:
    """The value that a standard normal variable exceeds with the probability `tail`."""
    if tail == TAIL:
        return Z
    from scipy.special import ndtri  # slow to import, and not needed to read claims

    return float(ndtri(1 - tail))


def t_quantile(probability: float, seeds: int) -> float:
    """The quantile of Student's t with seeds - 1 degrees of freedom."""
    from scipy.special import stdtrit  # slow to import, and not needed to read claims

    return float(stdtrit(seeds - 1, probability))


def jackknife_error(samples: Sequence[float]) -> float:
    """The standard error of an estimate, from its values with one seed left out, at least two of them."""
    deviations = np.asarray(samples) - np.mean(samples)
    return math.sqrt((len(samples) - 1) / len(samples) * float(deviations @ deviations))


def jackknife(value: float, samples: Sequence[float], tail: float = TAIL) -> Interval:
    """The interval of the estimate `value`, from its values with one seed left out; 95 % by default.

    `tail` is the probability that it lies above the true value, and that it lies below. Without two samples
    there is no interval: it is infinite.
    """
    if len(samples) < 2:
        return (-math.inf, math.inf)
    half = t_quantile(1 - tail, len(samples)) * jackknife_error(samples)
    return (value - half, value + half)


def wilson(value: float, units: float, quantile: float) -> Interval:
    """Wilson's interval of the fraction `value` of `units`, which need not be a whole number."""
    scale = 1 + quantile**2 / units
    centre = (value + quantile**2 / (2 * units)) / scale
    half = quantile / scale * math.sqrt(value * (1 - value) / units + quantile**2 / (4 * units**2))
    return (centre - half, centre + half)


def fraction_interval(value: float, units: int, samples: Sequence[float], tail: float = TAIL) -> Interval:
    """The interval of a fraction of `units`: on each side the wider of jackknife and Wilson, in [0, 1].

    `tail` is the probability that it lies above the true value, and that it lies below; by default 2.5 %.
    The jackknife accounts for units of one seed being dependent, but is too short near 0 and 1 and has no
    width where all units agree. Wilson's interval has neither fault; it assumes as many independent units as
    would have the jackknife's error (the effective sample size of Korn & Graubard 1998), and uses the t
    quantile because that error is estimated.
    """
    low, high = jackknife(value, samples, tail)
    if math.isinf(low):
        return (low, high)
    variance = jackknife_error(samples) ** 2
    independent = min(units, value * (1 - value) / variance) if variance and 0 < value < 1 else units
    score = wilson(value, independent, t_quantile(1 - tail, len(samples)))
    return (max(0.0, min(low, score[0])), min(1.0, max(high, score[1])))


def widen(value: float, interval: Interval, half_width: float) -> Interval:
    """`interval` of `value`, with an independent error of this half width added in quadrature."""
    low, high = interval
    return (value - math.hypot(value - low, half_width), value + math.hypot(high - value, half_width))


def agreeing(tail: float = TAIL) -> int:
    """How many seeds must all agree before most seeds can be said to.

    From this number on, the exact binomial interval of the share of seeds with this outcome lies above 1/2:
    with 2.5 % from six on, as .025^(1/6) = .54. Source: Clopper & Pearson (1934).
    """
    return math.floor(math.log(tail) / math.log(0.5)) + 1
