"""What a chart shows: lines over a shared x, with bands and rules, and the room it takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from loadtests.report_html.words import digits

LEFT, RIGHT, TOP, BOTTOM = 62.0, 24.0, 12.0, 34.0
NAMES = 30.0  # above a plot, where the names of bands and the flags of rules stand


@dataclass(frozen=True)
class Series:
    """A line. `low` and `high` are the ends of an interval at each of its points."""

    name: str
    values: Sequence[float | None]
    style: int = 0
    points: bool = False
    joined: bool = True  # false: points alone
    low: Sequence[float | None] = ()
    high: Sequence[float | None] = ()


@dataclass(frozen=True)
class Band:
    """A part of the x axis that is shaded: a phase."""

    start: float
    end: float
    name: str
    hatched: bool = False


@dataclass(frozen=True)
class Rule:
    """A line across the chart at one value: a fault's time, a bar, the knee."""

    at: float
    name: str
    axis: Literal["x", "y"] = "x"


@dataclass(frozen=True)
class Chart:
    """All values of a series are at the places in `x`; None leaves a gap."""

    title: str
    x: Sequence[float]
    series: Sequence[Series]
    x_name: str
    y_name: str
    about: str = ""
    x_kind: Literal["linear", "log", "time", "tail"] = "linear"
    y_kind: Literal["linear", "log", "share"] = "linear"
    x_words: Callable[[float], str] = digits
    y_words: Callable[[float | None], str] = digits
    x_range: tuple[float, float] | None = None
    bands: Sequence[Band] = ()
    rules: Sequence[Rule] = ()
    width: float = 960.0
    height: float = 200.0
    # Names of the bands and rules are written where there is room: once in a stack of charts.
    named: bool = True

    @property
    def top(self) -> float:
        """Where the plot begins."""
        return TOP + NAMES if self.x_kind == "time" and self.named else TOP

    @property
    def bottom(self) -> float:
        """Where the plot ends."""
        return self.height - (BOTTOM - 12 if self.x_kind == "time" else BOTTOM)
