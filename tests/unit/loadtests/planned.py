"""Planned requests for tests."""

from __future__ import annotations

from typing import Any

from loadtests.load.planned import Planned
from loadtests.measure.record import Record


def planned(**fields: Any) -> Planned:
    """A request that asks for four tokens at once, but for what is given."""
    defaults: dict[str, Any] = {
        "index": 0,
        "due_s": 0.0,
        "phase": "steady",
        "traffic": "all",
        "endpoint": "create_completion",
        "stream": True,
        "model": "m",
        "prompt": "one two three",
        "max_tokens": 4,
    }
    return Planned(**{**defaults, **fields})


def record(of: Planned) -> Record:
    return Record(
        index=of.index,
        phase=of.phase,
        traffic=of.traffic,
        model=of.model,
        account=of.account,
        priority=of.priority,
        session=of.session,
        turn=of.turn,
        stream=of.stream,
        counted=True,
        due_s=of.due_s or 0.0,
        max_tokens=of.max_tokens,
    )
