"""How a run goes, while it goes: in a terminal a view that is drawn anew, elsewhere plain lines."""

from __future__ import annotations

from collections import deque
from itertools import accumulate
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live as Screen
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from loadtests.measure.aggregate import Live as Figures
from loadtests.measure.summary import Mark
from loadtests.scenarios.model import Scenario

_WINDOW_S = 5.0  # over which rates and percentiles are taken
_LINE_S = 10.0  # between two plain lines
_KINDS = 5  # of errors
_MARKS = 5


class Live:
    """Shows one run, as its conductor tells it (`loadtests.run.conduct.Watcher`)."""

    def __init__(self, scenario: Scenario, console: Console | None = None) -> None:
        self._scenario = scenario
        self._console = console or Console(stderr=True)
        ends = list(accumulate(phase.seconds for phase in scenario.phases))
        self._phases = list(zip(scenario.phases, [0.0, *ends], ends, strict=False))
        self._screen: Screen | None = None
        self._looks: deque[tuple[float, Figures]] = deque()
        self._now, self._in_flight = 0.0, 0
        self._marks: deque[Mark] = deque(maxlen=_MARKS)
        self._note = ""
        self._problems: deque[str] = deque(maxlen=_MARKS)
        self._phase = ""
        self._line_due = 0.0

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._screen = Screen(console=self._console, auto_refresh=False, transient=True)
            self._screen.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._screen is not None:
            self._screen.__exit__(kind, error, trace)
            self._screen = None

    def began(self, scenario: Scenario) -> None:
        """The run begins: what it was waiting for is there."""
        self._note = ""

    def stopping(self, outstanding: int) -> None:
        """It was interrupted."""
        self.note(f"interrupted: ending {outstanding} requests in flight")

    def note(self, text: str) -> None:
        """Say what the run waits for."""
        self._note = text
        if self._screen is None:
            self._console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            self._draw()

    def problem(self, text: str) -> None:
        """Something is missing beside the figures."""
        self._problems.append(text)
        if self._screen is None:
            self._console.print(Text(text, "yellow"), highlight=False, soft_wrap=True)
        else:
            self._draw()

    def mark(self, mark: Mark) -> None:
        """A fault's command has ended."""
        self._marks.append(mark)
        if self._screen is None:
            self._console.print(_marked(mark), highlight=False, soft_wrap=True)
        else:
            self._draw()

    def show(self, at_s: float, live: Figures, in_flight: int) -> None:
        """How all processes together stand, so many seconds after the run's start; twice a second
        or so."""
        self._now, self._in_flight = at_s, in_flight
        self._looks.append((at_s, live))
        while len(self._looks) > 2 and self._looks[1][0] <= at_s - _WINDOW_S:
            self._looks.popleft()
        if self._screen is not None:
            self._draw()
            return
        phase = self._at()
        if phase != self._phase or at_s >= self._line_due:
            self._phase, self._line_due = phase, at_s + _LINE_S
            self._console.print(self._line(), markup=False, highlight=False, soft_wrap=True)

    # --- what is shown ---

    def _at(self) -> str:
        for phase, start, end in self._phases:
            if start <= self._now < end:
                return phase.name
        return "before the start" if self._now < 0 else "waiting for the last answers"

    def _rates(self) -> tuple[float, float, float, float]:
        """Due, sent, ended and tokens in a second."""
        if len(self._looks) < 2:
            return 0.0, 0.0, 0.0, 0.0
        (then, before), (now, after) = self._looks[0], self._looks[-1]
        seconds = max(now - then, 1e-3)
        return (
            (after.due - before.due) / seconds,
            (after.sent - before.sent) / seconds,
            (sum(after.ended.values()) - sum(before.ended.values())) / seconds,
            (after.tokens - before.tokens) / seconds,
        )

    def _ttft(self) -> tuple[float, float] | None:
        """p50 and p99 of the last seconds, in milliseconds from due."""
        recent = sorted(us for _, look in self._looks for us in look.ttft_us)
        if not recent:
            return None
        n = len(recent)
        return recent[-(-n // 2) - 1] / 1000, recent[-(-n * 99 // 100) - 1] / 1000

    def _last(self) -> Figures:
        return self._looks[-1][1] if self._looks else Figures()

    def _line(self) -> str:
        due, sent, ended, tokens = self._rates()
        figures, ttft = self._last(), self._ttft()
        parts = [
            f"{self._now:7.1f} s  {self._at()}",
            f"due {due:.1f}/s sent {sent:.1f}/s ended {ended:.1f}/s",
            f"in flight {self._in_flight}",
            f"ttft p50 {ttft[0]:.0f} p99 {ttft[1]:.0f} ms" if ttft else "ttft -",
            f"{tokens:.0f} tokens/s",
            *(f"{name} {count}" for name, count in _outcomes(figures)),
        ]
        return "  ".join(parts)

    def _draw(self) -> None:
        assert self._screen is not None
        self._screen.update(self.view(), refresh=True)

    def view(self) -> RenderableType:
        """What a terminal shows."""
        due, sent, ended, tokens = self._rates()
        figures, ttft = self._last(), self._ttft()
        now = Table.grid(padding=(0, 3))
        now.add_row(
            f"[b]{due:.1f}[/]/s due",
            f"[b]{sent:.1f}[/]/s sent",
            f"[b]{ended:.1f}[/]/s ended",
            f"[b]{self._in_flight}[/] in flight",
            f"[b]{tokens:.0f}[/] tokens/s",
            f"TTFT p50 [b]{ttft[0]:.0f}[/] p99 [b]{ttft[1]:.0f}[/] ms" if ttft else "TTFT -",
        )
        parts: list[RenderableType] = [self._title(), self._progress(figures), now]
        if counts := _outcomes(figures):
            parts.append(
                Text("  ").join(Text(f"{n} {name}", _STYLES.get(name, "")) for name, n in counts)
            )
        errors = sorted(figures.errors.items(), key=lambda item: (-item[1], item[0]))
        parts += [Text(f"  {count} {kind}", "red") for kind, count in errors[:_KINDS]]
        if len(errors) > _KINDS:
            parts.append(Text(f"  and {len(errors) - _KINDS} further kinds of errors", "red"))
        parts += [_marked(mark) for mark in self._marks]
        parts += [Text(problem, "yellow") for problem in self._problems]
        if self._note:
            parts.append(Text(self._note, "yellow"))
        return Group(*parts)

    def _title(self) -> Text:
        total = self._phases[-1][2]
        return Text.assemble(
            (self._scenario.name, "bold"),
            f"  {self._scenario.target.url}  {max(self._now, 0):.0f} of {total:.0f} s",
            f"  {self._at()}",
        )

    def _progress(self, figures: Figures) -> Table:
        table = Table.grid(padding=(0, 2))
        for phase, start, end in self._phases:
            done = min(max(self._now - start, 0.0), end - start)
            table.add_row(
                Text(phase.name, "bold" if start <= self._now < end else "dim"),
                ProgressBar(total=end - start, completed=done, width=30),
                Text(f"{figures.ended.get(phase.name, 0)} ended"),
                Text("" if phase.counted else "warm-up", "dim"),
            )
        return table


_STYLES = {"ok": "green", "error": "red", "rejected": "red", "wrong": "red", "cancelled": "yellow"}


def _outcomes(figures: Figures) -> list[tuple[str, int]]:
    found = [(name, count) for name, count in figures.outcomes.items() if count]
    return [*found, ("wrong", figures.wrong)] if figures.wrong else found


def _marked(mark: Mark) -> Text:
    ended = "took too long" if mark.status is None else f"exit {mark.status}"
    style = "magenta" if mark.status == 0 else "bold red"
    last = mark.output.strip().splitlines()[-1:]
    return Text(f"{mark.at_s:7.1f} s  {mark.name}: {' '.join([ended, *last])}", style)
