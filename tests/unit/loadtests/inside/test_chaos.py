from __future__ import annotations

from typing import Any

import pytest

from loadtests.inside.ask import Answered
from loadtests.inside.chaos import compare, judge
from loadtests.measure.record import Record
from tests.unit.loadtests.measure.records import failed, streamed

RIGHT = "Once upon a time"


def cut(error: str, **fields: Any) -> Record:
    return failed(0, 200, error, **fields)


@pytest.mark.parametrize(
    ("record", "text", "end", "problem"),
    [
        (streamed(), RIGHT, "ok", None),
        (streamed(wrong=True), "Twice", "ok", "'Twice' instead of 'Once upon a time'"),
        (streamed(usage_seen=False), RIGHT, "ok", "its usage never came"),
        (failed(0, 0, "closed before the answer"), "", "connection lost", None),
        (cut("truncated"), "Once", "connection lost", None),
        (cut("reset in the answer"), "Once", "connection lost", None),
        (cut("truncated", wrong=True), "Twi", "connection lost", "'Twi' instead of"),
        (cut("error event: engine_failed"), "Once", "error event", None),
        (cut("unreadable event"), "Once", "unreadable event", "unreadable event"),
        (failed(0, 503, "503 a", retry_after=True), "", "503 a", None),
        (failed(0, 503, "503 a"), "", "503 a", "503 a without retry-after"),
        (failed(0, 500, "500 b"), "", "500", "500 b"),
        (cut("timeout in the answer"), "Once", "hung", "timeout in the answer: no end within"),
    ],
)
def test_what_is_wrong_with_an_end(
    record: Record, text: str, end: str, problem: str | None
) -> None:
    found, why = judge(Answered(record, text), RIGHT)
    assert found == end
    assert (why is None) == (problem is None)
    assert why is None or why.startswith(problem or "")


def entry(prompt: int, completion: int) -> dict[str, int]:
    return {"prompt_tokens": prompt, "completion_tokens": completion}


@pytest.mark.parametrize(
    ("kept", "problems"),
    [
        ({"a": [entry(1, 2)], "b": [entry(3, 4)]}, []),
        # Its connection broke, whatever had been done by then.
        ({"a": [entry(1, 2)], "b": [entry(3, 4)], "lost": [entry(5, 0)]}, []),
        ({"b": [entry(3, 4)]}, ["not in the ledger: 1 completions, as a"]),
        ({"a": [entry(1, 1)], "b": [entry(3, 4)]}, ["a: told (1, 2), charged (1, 1)"]),
        (
            {"a": [entry(1, 2)] * 2, "b": [entry(3, 4)]},
            ["1 requests are in the ledger twice, as a"],
        ),
        (
            {"a": [entry(1, 2)], "b": [entry(3, 4)], "c": [entry(0, 0)]},
            ["in the ledger, and sent by nobody: 1, as c"],
        ),
    ],
)
def test_what_is_wrong_with_a_ledger(
    kept: dict[str, list[dict[str, int]]], problems: list[str]
) -> None:
    assert compare(kept, {"a": (1, 2), "b": (3, 4)}, {"a", "b", "lost"}) == problems
