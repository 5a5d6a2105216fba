from __future__ import annotations

import math
import statistics
from collections import Counter
from random import Random

import pytest

from loadtests.load.arrivals import times
from loadtests.scenarios.arrivals import Constant, Gamma, Poisson, Ramp, Step
from tests.unit.loadtests.load.statistics import (
    KOLMOGOROV,
    SIGMAS,
    exponential,
    gaps,
    kolmogorov,
    uniform,
)

KINDS = (
    Poisson(kind="poisson", rate=50),
    Constant(kind="constant", rate=50),
    Gamma(kind="gamma", rate=50, cv=3),
    Ramp(kind="ramp", start=0, end=100),
    Step(kind="step", rates=(10, 0, 140)),
)
Kind = Poisson | Constant | Gamma | Ramp | Step


def drawn(kind: Kind, seconds: float, seed: int = 1) -> list[float]:
    return list(times(kind, seconds, Random(seed)))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.kind)
def test_in_order_within_the_phase_and_the_same_for_the_same_seed(kind: Kind) -> None:
    found = drawn(kind, 100)
    assert found == sorted(found)
    assert found[0] >= 0
    assert found[-1] < 100
    assert found == drawn(kind, 100)
    if kind.kind != "constant":
        assert found != drawn(kind, 100, seed=2)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.kind)
def test_the_rate_is_what_was_asked_for(kind: Kind) -> None:
    """Over many seeds, so that also bursts show their mean. Each has 50 in a second."""
    runs = [len(drawn(kind, 10, seed)) for seed in range(200)]
    error = statistics.stdev(runs) / math.sqrt(len(runs)) if kind.kind != "constant" else 0
    assert abs(statistics.mean(runs) - 500) <= SIGMAS * error


def test_poisson_gaps_are_exponential_and_independent() -> None:
    between = gaps(drawn(Poisson(kind="poisson", rate=200), 100))
    assert kolmogorov([200 * gap for gap in between], exponential) < KOLMOGOROV
    following = statistics.correlation(between[:-1], between[1:])
    assert abs(following) < SIGMAS / math.sqrt(len(between))


def test_poisson_counts_vary_as_much_as_they_are_large() -> None:
    found = Counter(int(at) for at in drawn(Poisson(kind="poisson", rate=20), 2000))
    counts = [found[second] for second in range(2000)]
    dispersion = statistics.variance(counts) / statistics.mean(counts)
    assert abs(dispersion - 1) < SIGMAS * math.sqrt(2 / 2000)


def test_the_test_sees_gaps_that_are_not_exponential() -> None:
    between = gaps(drawn(Gamma(kind="gamma", rate=200, cv=1.2), 100))
    assert kolmogorov([200 * gap for gap in between], exponential) > KOLMOGOROV


def test_constant_gaps_do_not_drift() -> None:
    found = drawn(Constant(kind="constant", rate=3), 36_000)
    assert len(found) == 108_000
    assert found[-1] == (108_000 - 1) / 3


def test_gamma_gaps_have_the_coefficient_of_variation() -> None:
    between = gaps(drawn(Gamma(kind="gamma", rate=100, cv=3), 2000))
    mean = statistics.mean(between)
    assert mean == pytest.approx(0.01, rel=SIGMAS * 3 / math.sqrt(len(between)))
    assert statistics.stdev(between) / mean == pytest.approx(3, rel=0.03)


def test_gamma_gaps_are_gamma_distributed() -> None:
    """With cv² = 1/2 they are the sum of two exponential ones, whose distribution has a formula."""
    between = gaps(drawn(Gamma(kind="gamma", rate=100, cv=math.sqrt(0.5)), 100))
    scaled = [2 * 100 * gap for gap in between]
    assert kolmogorov(scaled, lambda x: 1 - (1 + x) * math.exp(-x)) < KOLMOGOROV


def test_gamma_of_cv_1_is_poisson() -> None:
    found = drawn(Gamma(kind="gamma", rate=100, cv=1), 100)
    assert kolmogorov([100 * gap for gap in gaps(found)], exponential) < KOLMOGOROV
    firsts = [drawn(Gamma(kind="gamma", rate=100, cv=1), 1, seed)[0] for seed in range(2000)]
    assert kolmogorov([100 * first for first in firsts], exponential) < KOLMOGOROV


@pytest.mark.parametrize(("start", "end"), [(0, 200), (200, 0), (50, 150), (100, 100)])
def test_a_ramp_follows_its_line(start: float, end: float) -> None:
    found = drawn(Ramp(kind="ramp", start=start, end=end), 100)
    assert len(found) == pytest.approx(10_000, abs=SIGMAS * 100)

    def part(at: float) -> float:
        return (start * at + (end - start) * at * at / 200) / 10_000

    assert kolmogorov(found, part) < KOLMOGOROV


def test_steps_have_each_their_rate() -> None:
    found = drawn(Step(kind="step", rates=(10, 100, 0, 50)), 400)
    for number, rate in enumerate((10, 100, 0, 50)):
        inside = [at - 100 * number for at in found if 100 * number <= at < 100 * (number + 1)]
        assert len(inside) == pytest.approx(100 * rate, abs=SIGMAS * math.sqrt(100 * rate))
        if inside:
            assert kolmogorov([at / 100 for at in inside], uniform) < KOLMOGOROV
            between = [rate * gap for gap in gaps(inside)]
            assert kolmogorov(between, exponential) < KOLMOGOROV
