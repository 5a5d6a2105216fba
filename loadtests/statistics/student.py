"""Student's t distribution, and the beta distribution beneath it."""

from __future__ import annotations

import math
from functools import lru_cache
from statistics import NormalDist

_TINY = 1e-300


def beyond(t: float, dof: float) -> float:
    """The chance of a value further from 0 than `t`, on either side.

    It is the regularised incomplete beta function at dof / (dof + t²).
    """
    if math.isinf(t):
        return 0.0
    return incomplete_beta(dof / 2, 0.5, dof / (dof + t * t))


@lru_cache(maxsize=4096)
def two_sided(alpha: float, dof: float) -> float:
    """The value that |t| exceeds with the chance `alpha`. Infinite without degrees of freedom."""
    if dof <= 0 or alpha <= 0:
        return math.inf
    if alpha >= 1:
        return 0.0
    if dof > 10_000:
        return -NormalDist().inv_cdf(alpha / 2)
    low, high = 0.0, 2.0
    while beyond(high, dof) > alpha:
        high *= 2
        if high > 1e12:
            return math.inf
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if beyond(middle, dof) > alpha else (low, middle)
    return (low + high) / 2


def incomplete_beta(a: float, b: float, x: float) -> float:
    """The regularised incomplete beta function: the chance that a beta variable is below x."""
    if x <= 0:
        return 0.0
    if x >= 1:
        return 1.0
    scale = math.exp(
        math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
        + a * math.log(x) + b * math.log1p(-x)
    )  # fmt: skip
    # The fraction converges fast on this side of the mean only.
    if x < (a + 1) / (a + b + 2):
        return scale * _fraction(a, b, x) / a
    return 1 - scale * _fraction(b, a, 1 - x) / b


def _fraction(a: float, b: float, x: float) -> float:
    """The continued fraction of DLMF 8.17.22 (https://dlmf.nist.gov/8.17), by Lentz's method."""
    c, d = 1.0, 1 - (a + b) * x / (a + 1)
    d = 1 / (d or _TINY)
    value = d
    for m in range(1, 500):
        for term in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 / ((1 + term * d) or _TINY)
            c = (1 + term / c) or _TINY
            value *= c * d
        if abs(c * d - 1) < 1e-14:
            break
    return value
