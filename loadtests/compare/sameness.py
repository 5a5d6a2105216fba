"""Whether runs may be compared: the same requests at the same times, measured validly."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from loadtests.compare.reading import Run

# Parts of a scenario that say where it goes and what counts, not what is sent.
APART = ("target", "client", "goals", "about")


class Incomparable(Exception):
    """Runs must not be compared; `reasons` says why."""

    def __init__(self, reasons: Sequence[str]) -> None:
        super().__init__("\n".join(reasons))
        self.reasons = list(reasons)


def reasons(a: Sequence[Run], b: Sequence[Run]) -> list[str]:
    """Why a comparison would mislead; empty if it would not."""
    found: list[str] = []
    for run in (*a, *b):
        found += [f"{run.name} is invalid: {reason}" for reason in run.summary.invalid]
    first = a[0]
    for run in (*a[1:], *b):
        found += [
            f"{run.name} ran another scenario than {first.name}: {difference}"
            for difference in _scenarios(first, run)
        ]
    seeds = [sorted(run.summary.seed for run in side) for side in (a, b)]
    if seeds[0] != seeds[1]:
        found.append(
            f"A has the seeds {seeds[0]} and B {seeds[1]}: not the same requests were sent"
        )
    return found


def differing(a: Sequence[Run], b: Sequence[Run]) -> list[str]:
    """What else is not the same; it may be what is compared, or what explains a difference."""
    facts = [_facts(side) for side in (a, b)]
    return [
        f"{name}: {_either(facts[0].get(name))} and {_either(facts[1].get(name))}"
        for name in sorted({*facts[0], *facts[1]})
        if facts[0].get(name) != facts[1].get(name)
    ]


def _scenarios(one: Run, other: Run) -> Iterator[str]:
    if one.summary.scenario != other.summary.scenario:
        yield f"{other.summary.scenario!r}, not {one.summary.scenario!r}"
    if one.scenario and other.scenario:
        yield from paths(one.scenario, other.scenario)
    elif _phases(one) != _phases(other):
        yield "other phases"


def paths(one: Any, other: Any, path: str = "") -> Iterator[str]:
    """Where two scenarios differ, as `phases.steady.arrivals.rate: 10, not 20`."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        for key in sorted({*one, *other}, key=str):
            if path or key not in (*APART, "seed", "name"):
                yield from paths(
                    one.get(key), other.get(key), f"{path}.{key}" if path else str(key)
                )
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for number, (left, right) in enumerate(zip(one, other, strict=True)):
            name = left.get("name", number) if isinstance(left, Mapping) else number
            yield from paths(left, right, f"{path}.{name}")
    elif one != other:
        yield f"{path}: {_short(other)}, not {_short(one)}"


def _phases(run: Run) -> list[tuple[str, float, bool, bool]]:
    return [
        (each.name, round(each.end_s - each.start_s, 3), each.counted, each.closed_loop)
        for each in run.summary.phases
    ]


def _facts(side: Sequence[Run]) -> dict[str, list[str]]:
    found: dict[str, set[str]] = {}
    for run in side:
        for name, value in {
            **run.summary.client,
            "url": run.summary.url,
            "processes of the client": str(run.summary.processes),
        }.items():
            found.setdefault(name, set()).add(value)
    return {name: sorted(values) for name, values in found.items()}


def _either(values: list[str] | None) -> str:
    return ", ".join(values) if values else "nothing"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
