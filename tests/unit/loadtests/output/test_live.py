"""The view of a running run: redrawn in a terminal, lines elsewhere."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from loadtests.measure.aggregate import Live as Figures
from loadtests.measure.summary import Mark
from loadtests.output.live import Live
from loadtests.scenarios.model import Scenario
from tests.unit.loadtests.measure.test_aggregate import scenario


def figures(n: int, **more: object) -> Figures:
    """After n half seconds of 10 requests/s with 4 tokens each."""
    return Figures(
        due=5 * n,
        sent=5 * n,
        ended={"warm": 5 * n},
        outcomes={"ok": 5 * n},
        tokens=20 * n,
        ttft_us=[20_000] * 4 + [90_000],
        **more,  # type: ignore[arg-type]
    )


class Shown:
    def __init__(self, terminal: bool, of: Scenario | None = None) -> None:
        self.out = io.StringIO()
        self.console = Console(file=self.out, force_terminal=terminal, width=140, color_system=None)
        self.live = Live(of or scenario(), self.console)

    @property
    def text(self) -> str:
        return self.out.getvalue()

    def view(self) -> str:
        with self.console.capture() as captured:
            self.console.print(self.live.view())
        return captured.get()


def test_rates_and_percentiles_are_of_the_last_seconds() -> None:
    shown = Shown(terminal=False)
    for n in range(20):
        shown.live.show(n / 2, figures(n), in_flight=7)
    # Ten times as fast, from now on; after five seconds the old rate is forgotten.
    for n in range(20, 40):
        quick = figures(19 + (n - 19) * 10)
        shown.live.show(n / 2, quick, in_flight=7)
    view = shown.view()
    assert "100.0/s due" in view
    assert "100.0/s ended" in view
    assert "400 tokens/s" in view
    assert "7 in flight" in view
    assert "TTFT p50 20 p99 90 ms" in view


def test_lines_without_a_terminal() -> None:
    shown = Shown(terminal=False)
    with shown.live as live:
        for n in range(60):
            live.show(n / 2, figures(n), in_flight=1)
    lines = shown.text.splitlines()
    # One with each phase, and one each ten seconds, which is the same here.
    assert [line.split()[2] for line in lines] == ["warm", "steady", "spike"]
    assert "due 10.0/s sent 10.0/s ended 10.0/s" in lines[-1]
    assert "\x1b" not in shown.text


def test_marks_and_notes_are_lines_too() -> None:
    shown = Shown(terminal=False)
    with shown.live as live:
        live.note("waiting for [2] shards")
        live.began(scenario())
        live.mark(Mark(at_s=3, name="kill", status=0, output="killed 5\n"))
        live.mark(Mark(at_s=4, name="drain", status=None, output=""))
    assert shown.text.splitlines() == [
        "waiting for [2] shards",
        "    3.0 s  kill: exit 0 killed 5",
        "    4.0 s  drain: took too long",
    ]


def test_what_a_terminal_shows() -> None:
    shown = Shown(terminal=True)
    with shown.live as live:
        live.show(-1.0, Figures(), in_flight=0)
        assert "before the start" in shown.view()
        live.show(12.0, figures(24, errors={f"kind [{n}]": n for n in range(1, 8)}, wrong=2), 3)
        live.mark(Mark(at_s=3, name="kill", status=1, output=""))
        live.note("waiting")
        live.began(scenario())
        live.stopping(17)
        view = shown.view()
    for words in (
        "12 of 30 s",
        "steady",
        "120 ended",
        "7 kind [7]",
        "and 2 further kinds of errors",
        "2 wrong",
        "kill: exit 1",
        "interrupted: ending 17 requests in flight",
    ):
        assert words in view
    assert "2 kind [2]" not in view
    assert "waiting" not in view
    assert shown.text.endswith("\x1b[?25h") or "\x1b[?25h" in shown.text  # the cursor is back


def test_a_run_that_is_interrupted_leaves_the_terminal_as_it_was() -> None:
    shown = Shown(terminal=True)

    def interrupted() -> None:
        with shown.live as live:
            live.show(1.0, figures(2), in_flight=0)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert shown.text.rindex("\x1b[?25h") > shown.text.rindex("\x1b[?25l")


def test_after_the_last_phase() -> None:
    shown = Shown(terminal=False)
    shown.live.show(31.0, figures(62), in_flight=4)
    assert "waiting for the last answers" in shown.text
