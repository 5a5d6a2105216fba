"""The time axis that the charts of a run share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from loadtests.measure.summary import Summary
from loadtests.report_html.chart import Band, Chart, Rule, Series
from loadtests.report_html.figure import figure
from loadtests.report_html.html import Markup
from loadtests.report_html.scales import clock_step
from loadtests.report_html.words import digits

POINTS = 360  # more than these are not told apart on a page, and each is a row of a table


@dataclass(frozen=True)
class Axis:
    """The time axis that all charts share: the run in equal parts."""

    end_s: float
    step_s: int
    bands: Sequence[Band]
    rules: Sequence[Rule]

    @property
    def starts(self) -> list[float]:
        """Where each part begins."""
        return [float(at) for at in range(0, max(1, int(-(-self.end_s // 1))), self.step_s)]

    def chart(
        self,
        title: str,
        unit: str,
        series: Sequence[Series],
        about: str = "",
        words: Callable[[float | None], str] = digits,
        named: bool = False,
        height: float = 150.0,
        log: bool = False,
    ) -> Markup:
        """A chart on this axis."""
        return figure(
            Chart(
                title,
                self.starts,
                series,
                "at",
                unit,
                about=about,
                x_kind="time",
                y_kind="log" if log else "linear",
                y_words=words,
                x_range=(0.0, max(self.end_s, 1.0)),
                bands=self.bands,
                rules=self.rules,
                named=named,
                height=height,
            )
        )


def axis(summary: Summary, points: int = POINTS) -> Axis:
    """The axis of a run: a part has a second, or more where they were too many to be seen."""
    end = max(
        [summary.seconds, *(s.at_s + s.seconds for s in summary.timeline)]
        + [phase.end_s for phase in summary.phases]
    )
    step = max(1, clock_step(end, points), *(second.seconds for second in summary.timeline))
    bands = [
        Band(
            phase.start_s,
            phase.end_s,
            phase.name if phase.counted else f"{phase.name} (not counted)",
            hatched=not phase.counted,
        )
        for phase in summary.phases
    ]
    return Axis(end, step, bands, [Rule(mark.at_s, mark.name) for mark in summary.marks])
