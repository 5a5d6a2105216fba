"""Shows a run as lines, where there is no terminal to draw on: in logs and in CI."""

from __future__ import annotations

from collections.abc import Callable

import click

from loadtests.measure.aggregate import Live
from loadtests.measure.summary import Mark
from loadtests.scenarios.model import Scenario

EVERY_S = 5.0


def to_stderr(line: str) -> None:
    """Write a line."""
    click.echo(line, err=True)


class Lines:
    """A line every five seconds, and one for each thing that happens."""

    def __init__(self, write: Callable[[str], None] = to_stderr) -> None:
        self._write = write
        self._next_s = EVERY_S
        self._starts: list[tuple[float, str]] = []

    def began(self, scenario: Scenario) -> None:
        """Say what begins."""
        at = 0.0
        for phase in scenario.phases:
            self._starts.append((at, phase.name))
            at += phase.seconds
        self._write(f"{scenario.name} against {scenario.target.url}: {at:g} s")

    def show(self, at_s: float, live: Live, in_flight: int) -> None:
        """Say how it goes, when it is time again."""
        if at_s < self._next_s:
            return
        while self._next_s <= at_s:
            self._next_s += EVERY_S
        phase = next(name for start, name in reversed(self._starts) if start <= at_s)
        outcomes = ", ".join(f"{name} {count}" for name, count in sorted(live.outcomes.items()))
        self._write(f"[{at_s:6.1f} s] {phase}: {outcomes or 'none ended'}; {in_flight} in flight")

    def mark(self, mark: Mark) -> None:
        """Say how a fault's command ended."""
        status = "did not end" if mark.status is None else f"status {mark.status}"
        output = "".join(f"\n    {line}" for line in mark.output.splitlines())
        self._write(f"[{mark.at_s:6.1f} s] {mark.name}: {status}{output}")

    def stopping(self, outstanding: int) -> None:
        """Say that it is being ended."""
        self._write(f"ending; {outstanding} requests are in flight")
