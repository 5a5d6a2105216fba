"""Between a run and the terminal that shows it."""

from __future__ import annotations

from loadtests.measure.aggregate import Live as Figures
from loadtests.measure.summary import Mark
from loadtests.output.live import Live
from loadtests.scenarios.model import Scenario


class Shown:
    """Tells the terminal what a run tells."""

    def __init__(self, live: Live) -> None:
        self._live = live

    def began(self, scenario: Scenario) -> None:
        """Say what begins."""
        seconds = sum(phase.seconds for phase in scenario.phases)
        self._live.note(f"{scenario.name} against {scenario.target.url}, {seconds:g} s")

    def show(self, at_s: float, live: Figures, in_flight: int) -> None:
        """Say how it goes."""
        self._live.update(at_s, live, in_flight)

    def mark(self, mark: Mark) -> None:
        """Say how a fault's command ended."""
        self._live.mark(mark)

    def stopping(self, outstanding: int) -> None:
        """Say that it is being ended."""
        self._live.note(f"ending; {outstanding} requests are in flight")
