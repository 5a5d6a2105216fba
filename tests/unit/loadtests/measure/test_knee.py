"""The knee: load over latency is greatest there."""

from __future__ import annotations

from loadtests.measure.knee import knee, knee_of, measured, varied
from loadtests.measure.summary import Load
from tests.unit.loadtests.simulated import latency


def test_the_knee_is_where_load_over_latency_is_greatest() -> None:
    # One exponential server of 100/s: sojourn times are 1/(100 - load). The power has its
    # greatest value at half of it.
    points = [(load, 1 / (100 - load)) for load in range(10, 100, 10)]
    assert knee(points) == 50
    flat = [(load, 1.0 if load <= 70 else 1.0 + (load - 70.0) ** 2) for load in range(10, 100, 10)]
    assert knee(flat) == 70
    assert knee([(load, 1.0) for load in range(10, 100, 10)]) is None, "not reached"
    assert knee(points[:2]) is None


def load(rate: float, p99_s: float) -> Load:
    found = latency([p99_s] * 100)
    return Load(phase="p", start_s=0, end_s=1, due_rate=rate, ended_rate=rate, ttft=found,
                tpot=None, e2e=None)  # fmt: skip


def test_loads_have_a_knee() -> None:
    loads = [load(rate, 1 / (100 - rate)) for rate in range(10, 100, 10)]
    assert varied(loads)
    assert measured(loads) == "ttft"
    assert knee_of(loads, "ttft") == 50
    assert knee_of(loads, "e2e") is None


def test_phases_of_about_one_rate_have_none() -> None:
    assert not varied([load(rate, 0.1) for rate in (3, 3.2, 2.9)])
    assert not varied([load(rate, 0.1) for rate in (3, 6)])
    assert varied([load(rate, 0.1) for rate in (3, 3, 6)])
