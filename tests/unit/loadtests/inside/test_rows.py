from __future__ import annotations

from typing import Any

import pytest

from loadtests.inside.rows import ROWS, findings, text
from loadtests.inside.stack_cases import net, stack_cases


def run(**figures: float) -> dict[str, Any]:
    base = {"frontend_us": 1.0, "engine_us": 1.0, "tokens_per_s": 1.0, "request_us": 1.0}
    return base | {"ttft_p50_ms": 1.0, "ttft_p99_ms": 1.0, "gap_p99_ms": 1.0} | figures


def test_a_ratio_is_the_median_of_the_rounds_own() -> None:
    runs = {
        "bare /v1": [run(frontend_us=value) for value in (10, 20, 30)],
        "ours /v4": [run(frontend_us=value) for value in (20, 10, 33)],
    }
    found = {finding.row.name: finding for finding in findings(runs)}
    cpu = found["frontend CPU per token, /v4 over bare"]
    assert (cpu.value, cpu.low, cpu.high) == (1.1, 0.5, 2.0)
    assert not cpu.met
    assert "throughput over bare, 128 streams" not in found, "not run"


@pytest.mark.parametrize(
    ("ours", "met", "gross"),
    [(0.9, True, False), (1.1, False, False), (1.3, False, True)],
)
def test_bars(ours: float, met: bool, gross: bool) -> None:
    runs = {
        "bare /v1": [run()],
        "ours /v4": [run(frontend_us=ours)],
    }
    (finding,) = [found for found in findings(runs) if found.row is ROWS[0]]
    assert (finding.met, finding.grossly_missed) == (met, gross)
    assert ("NOT MET" in text(runs, [])) is not met


def test_every_row_compares_cases_that_are_run() -> None:
    cases = {case.name for case in stack_cases("m", "a")}
    elsewhere = ("Ray Serve LLM", "executor", "router")
    for row in ROWS:
        for name in (row.one, row.other):
            assert name in cases or any(word in name for word in elsewhere), name


def test_idle_time_is_taken_off_but_never_more_than_was_used() -> None:
    used = {"router": 2.0, "serve control": 0.1, "engine core": 5.0}
    figures = {"seconds": 10.0, "tokens": 1000, "requests": 10, "cpu_s": used}
    found = net(figures, {"router": 0.1, "serve control": 0.5, "engine core": 0.1})
    assert found["roles_us"] == {"router": 1000.0, "serve control": 0.0, "engine core": 4000.0}
    assert found["frontend_us"] == 1000.0
    assert found["engine_us"] == 4000.0
    assert found["request_us"] == 100_000.0
    assert found["idle_cpu"] == 0.6
