"""A request as it was computed before the run, and the order in which requests are sent."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Writing = Literal["create_completion", "completions", "chat"]
Endpoint = Literal["create_completion", "completions", "chat", "embeddings", "rerank"]
# What reads a text and writes none, and its name for that text.
READERS: dict[Endpoint, str] = {"embeddings": "input", "rerank": "query"}


@dataclass(frozen=True, slots=True)
class Planned:
    """One request.

    The first turn of a session is due at `due_s`, in seconds since the run's start, whatever the
    server does. A later turn is due `think_s` after the answer before it has ended; its `due_s` is
    None here.
    """

    index: int  # unique over all processes; each phase counts from its number times 10 ** 9
    due_s: float | None
    phase: str
    traffic: str
    endpoint: Endpoint
    stream: bool
    model: str
    prompt: str  # what this turn adds
    max_tokens: int
    # What comes before it, shared with other requests; the same for all turns of a session.
    system: str | None = None
    account: str = ""
    key: str | None = field(default=None, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    images: tuple[str, ...] = ()  # URLs, `data:` mostly
    ignore_eos: bool = False
    priority: int | None = None
    session: int = 0
    turn: int = 0
    think_s: float = 0.0
    cancel_after_tokens: int | None = None
    cancel_after_s: float | None = None
    read_bytes_per_s: float | None = None
    reference: str | None = None  # the right answer's text
    extra: Mapping[str, Any] = field(default_factory=dict)


# The turns of a conversation; a single request is a session of one turn.
Turns = tuple[Planned, ...]


@dataclass(frozen=True, slots=True)
class PhasePlan:
    """What one process sends in one phase.

    Open loop: `sessions` is finite and in the order of its first turns' `due_s`. Closed loop
    (`concurrency` is not None): `sessions` has no end and no due times; so many run at a time until
    `end_s`, and each is due when its predecessor has ended.
    """

    name: str
    start_s: float
    end_s: float
    counted: bool
    sessions: Iterator[Turns]
    concurrency: int | None = None
