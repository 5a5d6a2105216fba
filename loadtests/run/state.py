"""What one shard of a run leaves behind, and the summary of all shards together."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path

import msgspec

from loadtests.measure.aggregate import Aggregate
from loadtests.measure.ledger import Usage, from_ledger
from loadtests.measure.reconcile import reconcile
from loadtests.measure.scrape import Snapshot
from loadtests.measure.summarise import summarise
from loadtests.measure.summary import Count, Mark, Scrape, Summary
from loadtests.run.shard import Shard
from loadtests.scenarios.model import Scenario

VERSION = 2


class State(msgspec.Struct):
    """A shard's part of a run."""

    version: int
    scenario: bytes  # JSON
    shard: int
    shards: int
    started_at: float  # Unix time, as this machine had it
    seconds: float
    aggregate: bytes
    marks: list[bytes]
    scrapes: list[bytes]
    # What the service had counted before and after; shard 0 alone asks it.
    before: Snapshot | None
    after: Snapshot | None
    used_before: Usage | None
    used_after: Usage | None
    notes: list[str]
    problems: list[str]
    clocks: str  # how far the shards' clocks differ, as far as this one knows


class CannotMerge(ValueError):
    """Files that are not the whole of one run."""


def pack(
    scenario: Scenario,
    shard: Shard,
    aggregate: Aggregate,
    *,
    started_at: float,
    seconds: float,
    marks: Sequence[Mark],
    scrapes: Sequence[Scrape],
    before: Snapshot | None,
    after: Snapshot | None,
    used_before: Usage | None,
    used_after: Usage | None,
    notes: Sequence[str],
    problems: Sequence[str],
    clocks: str = "",
) -> State:
    """Return a shard's part as it is kept."""
    return State(
        VERSION,
        document(scenario),
        shard.number,
        shard.count,
        started_at,
        seconds,
        aggregate.to_bytes(),
        [mark.model_dump_json().encode() for mark in marks],
        [scrape.model_dump_json().encode() for scrape in scrapes],
        before,
        after,
        used_before,
        used_after,
        list(notes),
        list(problems),
        clocks,
    )


def document(scenario: Scenario) -> bytes:
    """Return a scenario as JSON, the same for equal scenarios."""
    return scenario.model_dump_json().encode()


def checksum(scenario: Scenario) -> int:
    """Return a number that tells scenarios apart."""
    return zlib.crc32(document(scenario))


def encode(state: State) -> bytes:
    """Return a shard's part as it is written and handed over."""
    return msgspec.msgpack.encode(state)


def decode(data: bytes, source: str) -> State:
    """Return a shard's part; `source` says where it came from. Raises CannotMerge for others."""
    try:
        state = msgspec.msgpack.decode(data, type=State)
    except msgspec.MsgspecError as error:
        raise CannotMerge(f"{source} is no state of a shard: {error}") from None
    if state.version != VERSION:
        raise CannotMerge(f"{source} is of version {state.version}, and this is {VERSION}")
    return state


def read_state(path: Path) -> State:
    """Read a shard's part. Raises CannotMerge for another file, and OSError."""
    return decode(path.read_bytes(), str(path))


def merge(states: Sequence[State]) -> Summary:
    """Return the summary of a run from all its shards' parts, whatever their order.

    Raises CannotMerge where a part is missing, there twice, or of another run.
    """
    parts = sorted(states, key=lambda state: state.shard)
    if not parts:
        raise CannotMerge("there are no states to merge")
    first = parts[0]
    if any((part.scenario, part.shards) != (first.scenario, first.shards) for part in parts):
        raise CannotMerge("the states are of different scenarios, or of other numbers of shards")
    have = [part.shard for part in parts]
    if have != list(range(first.shards)):
        raise CannotMerge(f"the run had shards 0 to {first.shards - 1}, and these are {have}")
    scenario = Scenario.model_validate_json(first.scenario)
    aggregate = Aggregate.of(scenario)
    for part in parts:
        aggregate.merge(Aggregate.from_bytes(part.aggregate))
    summary = summarise(
        scenario,
        aggregate,
        started_at=first.started_at,
        seconds=max(part.seconds for part in parts),
        marks=[Mark.model_validate_json(mark) for part in parts for mark in part.marks],
        scrapes=[Scrape.model_validate_json(each) for part in parts for each in part.scrapes],
        counts=_counts(first, aggregate),
        problems=[_of(part, problem) for part in parts for problem in part.problems],
        notes=[_of(part, note) for part in parts for note in part.notes],
    )
    if first.shards > 1:
        summary.client["clocks"] = first.clocks or "not compared: the shards started by their own"
    return summary


def _counts(first: State, aggregate: Aggregate) -> list[Count]:
    """Compare all shards' requests together: the service does not know of shards."""
    nothing = Snapshot(0.0, {})
    ledger = (
        [from_ledger(first.used_before, first.used_after)]
        if first.used_before is not None and first.used_after is not None
        else []
    )
    return reconcile(first.before or nothing, first.after or nothing, aggregate, ledger)


def _of(part: State, text: str) -> str:
    return text if part.shards == 1 else f"shard {part.shard}: {text}"
