from __future__ import annotations

from collections import Counter
from statistics import median

import pytest

from loadtests.known.script import Shape, script


def test_the_same_request_gets_the_same() -> None:
    shape = Shape(error=0.3, no_usage=0.5)
    assert script(b"a", shape, 10, seed=1) == script(b"a", shape, 10, seed=1)
    assert script(b"a", shape, 10, seed=1) != script(b"b", shape, 10, seed=1)
    assert script(b"a", shape, 10, seed=1) != script(b"a", shape, 10, seed=2)


def test_delays_are_of_the_shape() -> None:
    shape = Shape(first_s=0.5, gap_s=0.01)
    found = [script(b"%d" % number, shape, 21, seed=1) for number in range(500)]
    assert all(len(each.delays) == 21 for each in found)
    assert median(each.delays[0] for each in found) == pytest.approx(0.5, rel=0.15)
    assert median(gap for each in found for gap in each.delays[1:]) == pytest.approx(0.01, rel=0.05)


def test_ends_have_their_shares() -> None:
    shape = Shape(error=0.1, rejected=0.2, hung=0.1, no_usage=0.3)
    found = [script(b"%d" % number, shape, 4, seed=1) for number in range(2000)]
    ends = Counter(each.end for each in found)
    assert set(ends) == {"error", "rejected", "hung", "whole"}
    for end, share in (("error", 0.1), ("rejected", 0.2), ("hung", 0.1), ("whole", 0.6)):
        assert ends[end] / 2000 == pytest.approx(share, abs=0.03)  # type: ignore[index]
    assert sum(not each.usage for each in found) / 2000 == pytest.approx(0.3, abs=0.04)
