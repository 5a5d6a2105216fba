from __future__ import annotations

import math
import random

import pytest

from loadtests.statistics.blocks import Mean, Sample, spread
from loadtests.statistics.difference import holm, of_means, of_quantiles, of_runs, welch
from loadtests.statistics.student import beyond, two_sided


@pytest.mark.parametrize(
    ("alpha", "dof", "t"),
    # Of printed tables.
    [(0.05, 1, 12.706), (0.05, 9, 2.262), (0.01, 19, 2.861), (0.001, 19, 3.883), (0.05, 1e6, 1.960),
     (0.5, 4, 0.741), (1e-6, 30, 6.119)],
)  # fmt: skip
def test_student(alpha: float, dof: float, t: float) -> None:
    assert two_sided(alpha, dof) == pytest.approx(t, abs=1e-3)
    assert beyond(t, dof) == pytest.approx(alpha, rel=2e-3)


def test_student_without_freedom_says_nothing() -> None:
    assert two_sided(0.05, 0) == math.inf
    assert beyond(0, 5) == pytest.approx(1)


def test_quantiles_and_shares_of_a_sample() -> None:
    sample = Sample(4)
    for value in range(1, 1001):
        sample.add(value % 4, value)
    assert sample.total == 1000
    for share in (0.01, 0.5, 0.9, 0.99, 1.0):
        assert sample.quantile(share) == pytest.approx(1000 * share, rel=2e-3)
    assert sample.quantile(1.001) == math.inf
    assert sample.above(900).value == pytest.approx(0.1)
    assert sum(sample.above(900).deviations) == pytest.approx(0)


def test_what_never_came_is_above_everything() -> None:
    sample = Sample(2)
    for number in range(100):
        sample.add(number % 2, math.inf if number < 5 else 10.0)
    assert sample.above(1e9).value == 0.05
    assert sample.quantile(0.95) == pytest.approx(10, rel=1e-3)
    assert sample.quantile(0.96) == math.inf


def test_blocks_that_go_together_are_less_sure() -> None:
    alone = [1.0, -1.0, 0.5, -0.5, -1.0, 1.0, -0.5, 0.5]
    together = [1.0, 1.0, 0.5, 0.5, -0.5, -0.5, -1.0, -1.0]
    assert spread(together, 8) > 1.5 * spread(alone, 8)
    assert spread([1.0], 1) == math.inf


def test_a_burst_in_one_block_is_one_observation() -> None:
    quiet, burst = [0.0] * 20, [0.0] * 19 + [50.0]
    spread_out = [2.5 + 0.1 * (n % 3) for n in range(20)]
    sizes = [100.0] * 20
    assert of_means(Mean.of(quiet, sizes), Mean.of(burst, sizes), True).p > 0.3
    assert of_means(Mean.of(quiet, sizes), Mean.of(spread_out, sizes), True).p < 1e-6


def test_pairs_take_out_what_both_had() -> None:
    chance = random.Random(1)
    bursts = [chance.uniform(0, 100) for _ in range(20)]
    a = Mean.of(bursts, [1.0] * 20)
    b = Mean.of([burst + 3 + chance.gauss(0, 1) for burst in bursts], [1.0] * 20)
    assert of_means(a, b, paired=True).p < 1e-4
    assert of_means(a, b, paired=False).p > 0.5


def test_equal_sides_differ_by_nothing() -> None:
    sample = Sample(10)
    for number in range(1000):
        sample.add(number % 10, 1.0 + number % 97)
    assert of_quantiles(sample, sample, 0.5, True).p == 1
    mean = sample.above(50)
    assert of_means(mean, mean, True).p == 1
    # And a difference without any deviation is one.
    assert of_means(Mean.of([1.0] * 5, [10.0] * 5), Mean.of([2.0] * 5, [10.0] * 5), True).p == 0


def test_a_quantile_that_was_not_reached_has_no_upper_end() -> None:
    chance = random.Random(2)
    few, many = Sample(10), Sample(10)
    for number in range(50):
        few.add(number % 10, chance.expovariate(1))
    for number in range(5000):
        many.add(number % 10, chance.expovariate(1))
    low, high = of_quantiles(many, few, 0.99, False).interval(0.05)
    assert high == math.inf
    assert low < 0


def test_runs_are_compared_by_welch() -> None:
    # Figures checked with a statistics package.
    found = of_runs([10.0, 12.0, 11.0, 13.0], [14.0, 18.0, 16.0])
    assert found.value == pytest.approx(4.5)
    assert found.p == pytest.approx(0.0378151, abs=1e-6)
    assert welch([(1.0, 5), (1.0, 5)]) == pytest.approx(10)


def test_holm() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == []
    assert holm([0.9, 0.8]) == [1.0, 1.0]
