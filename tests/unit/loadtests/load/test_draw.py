from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from random import Random

import pytest

from loadtests.load.draw import Weighted, length, number, zipf_weights
from loadtests.scenarios.distributions import (
    Distribution,
    Drawn,
    Exponential,
    Fixed,
    Lognormal,
    Uniform,
)
from loadtests.scenarios.errors import ScenarioError
from tests.unit.loadtests.load.statistics import (
    KOLMOGOROV,
    SIGMAS,
    chi_square,
    exponential,
    kolmogorov,
    normal,
    uniform,
)


def numbers(distribution: Distribution, count: int = 20_000) -> list[float]:
    draw, rng = number(distribution), Random(1)
    return [draw(rng) for _ in range(count)]


def lengths(distribution: Distribution, count: int = 20_000) -> list[int]:
    draw, rng = length(distribution), Random(1)
    return [draw(rng) for _ in range(count)]


def test_fixed() -> None:
    assert set(numbers(Fixed(value=2.5))) == {2.5}
    assert set(lengths(Fixed(value=7))) == {7}


def test_uniform() -> None:
    found = numbers(Uniform(kind="uniform", low=2, high=6))
    assert kolmogorov([(value - 2) / 4 for value in found], uniform) < KOLMOGOROV


def test_uniform_lengths_are_each_as_likely_also_the_ends() -> None:
    counts = Counter(lengths(Uniform(kind="uniform", low=3, high=12)))
    assert sorted(counts) == list(range(3, 13))
    assert chi_square(list(counts.values()), [2000] * 10) < SIGMAS


def test_lognormal() -> None:
    found = numbers(Lognormal(kind="lognormal", median=100, sigma=0.7, low=0))
    scaled = [(math.log(value) - math.log(100)) / 0.7 for value in found]
    assert kolmogorov(scaled, normal) < KOLMOGOROV


def test_lognormal_lengths_keep_to_their_bounds_and_their_median() -> None:
    found = sorted(lengths(Lognormal(kind="lognormal", median=100, sigma=1, low=20, high=400)))
    assert (found[0], found[-1]) == (20, 400)
    assert found[len(found) // 2] == pytest.approx(100, rel=0.03)
    above = sum(value == 400 for value in found) / len(found)
    assert above == pytest.approx(1 - normal(math.log(4)), abs=0.01)


def test_exponential() -> None:
    found = numbers(Exponential(kind="exponential", mean=4))
    assert kolmogorov([value / 4 for value in found], exponential) < KOLMOGOROV
    assert max(numbers(Exponential(kind="exponential", mean=4, high=5))) == 5


def test_lines_of_a_file_are_each_as_likely(tmp_path: Path) -> None:
    path = tmp_path / "lengths.txt"
    path.write_text("5\n\n7.6\n 5 \n100\n")
    counts = Counter(lengths(Drawn(kind="file", path=str(path))))
    assert sorted(counts) == [5, 8, 100]
    assert chi_square([counts[5], counts[8], counts[100]], [10_000, 5_000, 5_000]) < SIGMAS


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("5\nfive\n", ":2: 'five' is no number of 0 or more"),
        ("5\n-1\n", ":2: '-1' is no number of 0 or more"),
        ("nan\n", ":1: 'nan' is no number of 0 or more"),
        ("\n\n", ":1: the file has no numbers; write one in each line"),
    ],
)
def test_a_file_of_other_things(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "lengths.txt"
    path.write_text(text)
    with pytest.raises(ScenarioError) as error:
        number(Drawn(kind="file", path=str(path)))
    assert str(error.value) == f"{path}{message}"


def test_a_length_is_one_at_least() -> None:
    assert set(lengths(Exponential(kind="exponential", mean=0.01), 100)) == {1}


def test_weights() -> None:
    rng, choice = Random(1), Weighted(("a", "b", "c"), (1, 2.5, 0.5))
    counts = Counter(choice.draw(rng) for _ in range(20_000))
    assert chi_square([counts["a"], counts["b"], counts["c"]], [5_000, 12_500, 2_500]) < SIGMAS


def test_zipf_over_thousands() -> None:
    count, draws = 5_000, 200_000
    weights = zipf_weights(count, 1.1)
    choice, rng = Weighted(range(count), weights), Random(1)
    found = Counter(choice.draw(rng) for _ in range(draws))
    share = draws / sum(weights)
    seen = [found[n] for n in range(200)]
    expected = [weight * share for weight in weights[:200]]
    seen.append(draws - sum(seen))
    expected.append(draws - sum(expected))
    assert chi_square(seen, expected) < SIGMAS
    assert len(found) > 0.9 * count


def test_exponent_0_is_each_as_likely() -> None:
    assert zipf_weights(4, 0) == [1, 1, 1, 1]
