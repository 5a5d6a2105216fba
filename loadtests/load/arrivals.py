"""When sessions begin: seconds from the beginning of a phase, in order, computed before the run.

Each function yields times in [0, seconds) and draws from the generator that it is given, so that
one seed makes one schedule.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import count
from random import Random

from loadtests.scenarios.arrivals import Constant, Gamma, Poisson, Ramp, Step


def times(
    arrivals: Poisson | Constant | Gamma | Ramp | Step, seconds: float, rng: Random
) -> Iterator[float]:
    """Yield the times of one phase."""
    match arrivals:
        case Constant(rate=rate):
            return _constant(rate, seconds)
        case Poisson(rate=rate):
            return _steps((rate,), seconds, rng)
        case Gamma(rate=rate, cv=cv):
            return _gamma(rate, cv, seconds, rng)
        case Ramp(start=start, end=end):
            return _ramp(start, end, seconds, rng)
        case Step(rates=rates):
            return _steps(rates, seconds, rng)


def _constant(rate: float, seconds: float) -> Iterator[float]:
    for number in count():
        # Not by adding gaps: their rounding errors would add up over hours.
        at = number / rate
        if at >= seconds:
            return
        yield at


def _steps(rates: tuple[float, ...], seconds: float, rng: Random) -> Iterator[float]:
    """Yield a Poisson process of a rate that changes in equal steps.

    By inversion: points of a Poisson process of rate 1, put where the integral of the rate reaches
    them (Çinlar 1975, Introduction to Stochastic Processes, theorem 4.7.4).
    """
    part = seconds / len(rates)
    point = rng.expovariate(1)
    passed = 0.0  # the integral of the rate up to this step
    for number, rate in enumerate(rates):
        begin, weight = number * part, rate * part
        while point < passed + weight:
            at = begin + (point - passed) / rate
            if at >= seconds:
                return
            yield at
            point += rng.expovariate(1)
        passed += weight


def _ramp(start: float, end: float, seconds: float, rng: Random) -> Iterator[float]:
    """Yield a Poisson process of a rate that changes evenly, by inversion as `_steps` does it.

    The integral of the rate is start t + (end - start) t² / (2 seconds); its inverse is written so
    that it loses no digits where the rate hardly changes.
    """
    slope = (end - start) / seconds
    total = (start + end) / 2 * seconds
    point = rng.expovariate(1)
    while point < total:
        at = 2 * point / (start + math.sqrt(max(0.0, start * start + 2 * slope * point)))
        if at >= seconds:
            return
        yield at
        point += rng.expovariate(1)


def _gamma(rate: float, cv: float, seconds: float, rng: Random) -> Iterator[float]:
    """Yield a renewal process of gamma distributed gaps.

    It begins in equilibrium, as if it had always run: the first gap is a part of one that is drawn
    in proportion to its length. Begun with a whole gap, it would send more than the rate says
    (by (cv² - 1) / 2 sessions).
    """
    shape, scale = cv**-2, cv**2 / rate
    at = rng.random() * rng.gammavariate(shape + 1, scale)
    while at < seconds:
        yield at
        at += rng.gammavariate(shape, scale)
