"""Entries, and a log that can be read."""

from __future__ import annotations

import logging
from collections.abc import Callable

import msgspec
import pytest

from serving.observability.logs import Log
from serving.store.entry import Entry

ENTRY = Entry(
    request_id="r",
    ended_at=1_764_460_800.0,
    account="acme",
    key_id="k1",
    model="tiny",
    served_model="tiny",
    engine="tiny",
    kind="engine",
    endpoint="/v4/completions",
    stream=True,
    outcome="ok",
    status=200,
    code=None,
    finish_reason="stop",
    usage_known=True,
    prompt_tokens=7,
    cached_tokens=0,
    completion_tokens=5,
    images=0,
    queue_s=0.01,
    ttft_s=0.02,
    total_s=0.3,
    replica="a",
    retried=False,
)

Make = Callable[[int], Entry]


@pytest.fixture
def make() -> Make:
    """Makes the entry of a request by number, which its completion tokens tell."""
    return lambda n: msgspec.structs.replace(ENTRY, request_id=f"r{n}", completion_tokens=n)


@pytest.fixture
def log() -> Log:
    return Log(logging.getLogger("test"))
