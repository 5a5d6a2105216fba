"""From what was measured to the summary of a run."""

from __future__ import annotations

import os
import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from itertools import accumulate

from loadtests.measure.aggregate import Aggregate
from loadtests.measure.cell import Cell
from loadtests.measure.cuts import Window, cuts, rate, select, span
from loadtests.measure.goals import verdicts
from loadtests.measure.loads import loads
from loadtests.measure.summary import Count, Mark, PhaseFigures, Scrape, Summary
from loadtests.measure.validity import reasons
from loadtests.scenarios.arrivals import Closed
from loadtests.scenarios.model import Scenario
from loadtests.scenarios.write import to_yaml


def summarise(
    scenario: Scenario,
    aggregate: Aggregate,
    *,
    started_at: float,
    seconds: float,
    url: str | None = None,
    marks: Sequence[Mark] = (),
    scrapes: Sequence[Scrape] = (),
    counts: Sequence[Count] = (),
    problems: Sequence[str] = (),
    notes: Sequence[str] = (),
) -> Summary:
    """The whole run. `started_at` is Unix time; `seconds` is until the last request had ended.

    `problems` are further reasons why the figures must not be used; `notes` say what is missing
    beside them. What the processes that sent
    say of themselves is in the aggregate (`clients`).
    """
    windows = windows_of(scenario)
    phases = phases_of(scenario, aggregate, windows)
    counted = span(select(aggregate.cells, {})).cell
    invalid = [*problems, *reasons(scenario.client, counted, phases, aggregate.clients)]
    lost = _lost(aggregate)
    if lost and not any(client.interrupted for client in aggregate.clients):
        invalid.append(
            f"{lost} requests became due and have no record: a process of the client died or was "
            "stopped; look at its output and run again"
        )
    return Summary(
        scenario=scenario.name,
        about=scenario.about,
        seed=scenario.seed,
        url=url or scenario.target.url,
        started_at=datetime.fromtimestamp(started_at, UTC).isoformat(timespec="milliseconds"),
        seconds=seconds,
        processes=max(len(aggregate.clients), 1),
        client=machine(),
        invalid=invalid,
        cuts=cuts(aggregate.cells, windows),
        timeline=aggregate.timeline.seconds(),
        phases=phases,
        marks=sorted(marks, key=lambda mark: mark.at_s),
        scrapes=list(scrapes),
        counts=list(counts),
        verdicts=verdicts(scenario.goals, aggregate.cells, windows, counts, scrapes),
        loads=loads(scenario, aggregate.timeline),
        source=to_yaml(scenario),
        notes=list(notes),
    )


def windows_of(scenario: Scenario) -> dict[str, Window]:
    """When each phase begins and is to end."""
    ends = list(accumulate(phase.seconds for phase in scenario.phases))
    starts = [0.0, *ends]
    return {
        phase.name: Window(round(start * 1e6), round(end * 1e6))
        for phase, start, end in zip(scenario.phases, starts, ends, strict=False)
    }


def phases_of(
    scenario: Scenario, aggregate: Aggregate, windows: Mapping[str, Window]
) -> list[PhaseFigures]:
    """What each phase was to send, and did. A request that is missing was due, too."""
    due, sent = Counter[str](), Counter[str]()
    for (*_, name), cell in aggregate.cells.items():
        due[name] += cell.requests
        sent[name] += cell.in_time
    said = Counter[str]()
    for client in aggregate.clients:
        said.update(client.due)
    figures: list[PhaseFigures] = []
    for phase in scenario.phases:
        window = windows[phase.name]
        closed = isinstance(phase.arrivals, Closed)
        count = max(due[phase.name], said[phase.name])
        figures.append(
            PhaseFigures(
                name=phase.name,
                start_s=window.start_us / 1e6,
                end_s=window.end_us / 1e6,
                counted=phase.counted,
                closed_loop=closed,
                due=count,
                sent=sent[phase.name],
                configured_rate=None if closed else rate(count, phase.seconds),
                achieved_rate=rate(sent[phase.name], phase.seconds),
            )
        )
    return figures


def _lost(aggregate: Aggregate) -> int:
    said = sum(sum(client.due.values()) for client in aggregate.clients)
    known: list[Cell] = list(aggregate.cells.values())
    return max(0, said - sum(cell.requests for cell in known))


def machine() -> dict[str, str]:
    """Versions and machine of the client, to tell two runs apart. It names no host."""
    found = {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
        "machine": platform.machine(),
        "cores": str(os.cpu_count() or 0),
    }
    # It is installed on its own, or as a part of the service's package.
    for package in ("serving-loadtest", "serving"):
        try:
            found["loadtest"] = version(package)
            break
        except PackageNotFoundError:
            continue
    return found
