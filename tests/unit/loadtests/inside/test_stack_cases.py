from __future__ import annotations

from typing import Any

import pytest

from loadtests.inside.ask import Answered
from loadtests.inside.stack_cases import Case, latencies
from tests.unit.loadtests.measure.records import failed, streamed

CASE = Case("ours /v4", "ours", "create_completion", "m", clients=2, tokens=3)


def answers(*firsts_s: float, **fields: Any) -> list[Answered]:
    """Streams of three tokens, 20 ms apart."""
    events = ((first, first + 0.02, first + 0.04) for first in firsts_s)
    return [Answered(streamed(1.0, each, **fields), "one text") for each in events]


def test_times_count_from_when_a_client_sent() -> None:
    found = latencies(CASE, answers(*(0.010 + 0.001 * n for n in range(100))))
    assert found["texts"] == ["one text"]
    # Of 100 values the 50th and the 99th, to the histogram's three digits.
    assert found["ttft_p50_ms"] == pytest.approx(59, rel=0.002)
    assert found["ttft_p99_ms"] == pytest.approx(108, rel=0.002)
    assert found["gap_p50_ms"] == found["gap_p99_ms"] == pytest.approx(20, rel=0.002)


def test_events_that_arrive_together_have_no_time_between_them() -> None:
    (stream,) = answers(0.01)
    stream.record.event_s[1] = stream.record.event_s[0]
    found = latencies(CASE, [stream])
    assert (found["gap_p50_ms"], found["gap_p99_ms"]) == (0.0, pytest.approx(40, rel=0.002))


def test_whole_answers_have_one_time() -> None:
    whole = Case("ours /v4, 1 token, whole", "ours", "create_completion", "m", 1, 3, stream=False)
    found = latencies(whole, answers(0.01, first_s=None, end_s=1.05))
    assert found == {"request_p50_ms": pytest.approx(50, rel=0.002)}


@pytest.mark.parametrize(
    ("record", "words"),
    [(failed(0, 500, "500 x"), "500 x"), (streamed(0.0, (0.1, 0.2)), "2 tokens")],
)
def test_a_stream_that_fails_or_is_short_ends_the_comparison(record: Any, words: str) -> None:
    with pytest.raises(RuntimeError, match=f"ours /v4: {words}"):
        latencies(CASE, [*answers(0.01), Answered(record, "")])
