"""The comparison sees what differs, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from tests.cluster.beside.alike import difference, joined
from tests.cluster.beside.sides import Answer


def told(ours: Any, theirs: Any) -> str:
    answers = Answer(200, "application/json", ours), Answer(200, "application/json", theirs)
    return difference(*answers, "alias", "base")


def test_what_is_its_own_is_not_compared() -> None:
    ours = {"id": "a", "created": 1, "model": "alias", "usage": {"total_tokens": 3}}
    theirs = {"id": "b", "created": 2, "model": "base", "usage": {"total_tokens": 3}}
    assert not told(ours, theirs)
    assert not told({"score": 0.5}, {"score": 0.50001})


@pytest.mark.parametrize(
    ("ours", "theirs", "says"),
    [
        ({"model": "base"}, {"model": "base"}, "model: 'base' is not"),
        ({"id": None}, {"id": "b"}, "id: None is not"),
        ({"a": {"b": [1, 2]}}, {"a": {"b": [1, 3]}}, "a.b[1]: 2 is not 3"),
        ({"a": 1, "b": 2}, {"a": 1}, "only ours has 'b'"),
        ({"a": 1}, {"a": 1, "b": None}, "only theirs has 'b'"),
        ({"a": [1]}, {"a": [1, 2]}, "a: [1] is not [1, 2]"),
        ({"score": 0.5}, {"score": 0.51}, "score: 0.5 is not 0.51"),
        (["a"], ["b"], "[0]: 'a' is not 'b'"),
        (b"a", b"b", "answer: b'a' is not b'b'"),
    ],
)
def test_what_differs_is_told(ours: Any, theirs: Any, says: str) -> None:
    assert says in told(ours, theirs)


def test_another_status_is_told_first() -> None:
    ours, theirs = Answer(200, "a", {"b": 1}), Answer(400, "a", {"b": 2})
    assert difference(ours, theirs, "", "").startswith("status: 200 is not 400")


def delta(text: str, index: int = 0) -> list[Any]:
    said = {"type": "text_delta", "text": text}
    return ["content_block_delta", {"index": index, "delta": said}]


STOP = ["content_block_stop", {"index": 0}]


def test_pieces_of_a_stream_are_joined() -> None:
    assert joined([delta("a"), delta("b"), STOP]) == [delta("ab"), STOP]
    assert not told([delta("a"), delta("bc"), STOP], [delta("ab"), delta("c"), STOP])
    assert "'ab' is not 'ac'" in told([delta("a"), delta("b")], [delta("ac")])
    assert joined([delta("a"), delta("b", index=1)]) == [delta("a"), delta("b", index=1)]
    assert told([delta("a"), STOP, delta("b")], [delta("a"), delta("b"), STOP])


def chunk(index: int, text: str, reason: str | None = None) -> list[Any]:
    return [None, {"choices": [{"index": index, "text": text, "finish_reason": reason}]}]


def test_choices_come_one_after_another() -> None:
    mixed = [chunk(1, "x"), chunk(0, "a"), chunk(1, "y", "stop"), chunk(0, "b", "length")]
    done = [None, "[DONE]"]
    assert joined([*mixed, done]) == [chunk(0, "ab", "length"), chunk(1, "xy", "stop"), done]
    usage: list[Any] = [None, {"choices": [], "usage": {"total_tokens": 3}}]
    assert joined([chunk(0, "a"), usage, done]) == [chunk(0, "a"), usage, done]
