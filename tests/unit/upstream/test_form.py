"""What a caller's body costs before it goes to a provider."""

from __future__ import annotations

import time

import pytest

from serving.errors import InvalidRequest
from serving.upstream.form import MAX_COLONS, json_object


def body(keys: int) -> bytes:
    fields = b",".join(b'"%d":1' % number for number in range(keys))
    return b'{"messages":[{%s}]}' % fields


def test_so_many_keys_are_read_in_a_moment_and_more_are_refused() -> None:
    began = time.thread_time()
    assert len(json_object(body(MAX_COLONS - 1))["messages"][0]) == MAX_COLONS - 1
    assert time.thread_time() - began < 0.3  # 0.07 is usual
    with pytest.raises(InvalidRequest, match=r"has 200001 colons; at most 200000 are taken"):
        json_object(body(MAX_COLONS))


def test_a_small_body_is_not_counted() -> None:
    assert json_object(b'{"a": "%s"}' % (b":" * 60_000))
