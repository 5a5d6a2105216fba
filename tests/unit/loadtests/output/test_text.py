"""The final table says what the summary says, and what is wrong with it in red."""

from __future__ import annotations

import io
import re

from rich.console import Console

from loadtests.measure.knee import knee_of
from loadtests.measure.summary import Count, Mark, Summary
from loadtests.output.text import ms, table
from loadtests.scenarios.model import Goal
from tests.unit.loadtests.measure.records import failed, streamed
from tests.unit.loadtests.measure.test_validity import run, steady
from tests.unit.loadtests.simulated import showcase


def shown(summary: Summary, color: bool = False, width: int = 160) -> str:
    out = io.StringIO()
    console = Console(
        file=out, width=width, force_terminal=color, color_system="standard" if color else None
    )
    console.print(table(summary))
    return out.getvalue()


def rows(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


def test_headlines_are_from_due_and_service_times_beside() -> None:
    text = shown(run([streamed(10, (0.5, 0.7), late_s=0.2)]))
    lines = text.splitlines()
    headings = ("from due", "service time, from sent")
    due, service = (n for n, line in enumerate(lines) if line.strip() in headings)
    first = [n for n, line in enumerate(lines) if line.strip().startswith("first token")]
    assert due < first[0] < service < first[1]
    assert lines[first[0]].split()[2:] == ["1", *["500.0"] * 7]
    assert lines[first[1]].split()[2:] == ["1", *["300.0"] * 7]


def test_what_happened_to_requests() -> None:
    records = [streamed(10, checked=True, wrong=True), failed(11), failed(12, 429, "too many")]
    text = shown(run(records))
    assert (
        "3 requests: 1 ok, 1 error, 0 cancelled, 1 rejected; 1 of 1 checked answers wrong" in text
    )
    assert "  1 HTTP 500\n" in text
    assert "  1 too many\n" in text


def test_phases_as_configured_and_as_delivered() -> None:
    text = shown(run(steady(500)))
    assert ["steady", "10", "500", "500", "50.00", "50.00"] in rows(text)
    assert ["warm", "10", "0", "0", "0.00", "0.00", "warm-up"] in rows(text)


def test_an_invalid_run_says_so_in_red() -> None:
    summary = run(steady(50, late_s=0.1))
    text = shown(summary, color=True)
    assert "\x1b[1;31minvalid: do not use these figures" in text
    plain = shown(summary)
    assert plain.index("invalid") < plain.index("phase")
    assert "its lag is 100.0 ms" in " ".join(plain.split())
    assert "invalid" not in shown(run(steady(50)))


def test_cuts_where_there_are_several() -> None:
    text = shown(run([streamed(10, model=f"m{n:02}") for n in range(30)]))
    assert "by model" in text
    assert "by account" not in text
    assert ["m00", "1", "0", "100.0", "100.0", "100.0", "300.0"] in [row[:7] for row in rows(text)]
    assert "and 18 more in summary.json" in text


def test_figures_are_whole_in_a_narrow_terminal() -> None:
    name = "a-model-with-a-rather-long-name.240601-120000"
    records = [streamed(10 + n / 100, model=name if n % 2 else "b") for n in range(900)]
    text = shown(run(records), width=80)
    assert "…" not in text
    assert max(len(line) for line in text.splitlines()) <= 80
    assert "service time, from sent" in text


def test_verdicts_marks_and_counts() -> None:
    goals = (
        Goal(measure="ttft_p99_ms", at_most=500),
        Goal(measure="ttft_p99_ms", at_most=50),
        Goal(measure="wrong_answers", at_most=0),
    )
    summary = run([streamed(10)], goals=goals)
    summary.marks.append(Mark(at_s=3, name="kill [one]", status=1, output=""))
    summary.counts.append(
        Count(what="completion tokens", model=None, client=3, server=9, explained=4, note="why")
    )
    text = shown(summary)
    assert ["ttft_p99_ms", "at", "most", "500", "100", "met"] in rows(text)
    assert ["ttft_p99_ms", "at", "most", "50", "100", "missed"] in rows(text)
    assert ["wrong_answers", "at", "most", "0", "not", "measured", "missed"] in rows(text)
    assert "3.0 s  kill [one]: exit 1" in text
    assert ["completion", "tokens", "3", "9", "4", "2", "why"] in rows(text)


def test_the_knee_is_told_where_loads_differ() -> None:
    summary = showcase(hostile=False)
    assert re.search(
        r"^the knee is at \d+\.\d requests/s \(first token, p99\)$", shown(summary), re.M
    )
    knee = knee_of(summary.loads, "ttft")
    assert knee is not None
    summary.loads[:] = [load for load in summary.loads if load.due_rate <= knee]
    assert re.search(r"^no knee up to \d+\.\d requests/s", shown(summary), re.M)
    summary.loads[:] = summary.loads[:1] * 4
    assert "knee" not in shown(summary)


def test_names_are_no_markup() -> None:
    text = shown(run([streamed(10, model="[red]x[/]"), streamed(10, model="y")]))
    assert "[red]x[/]" in text


def test_digits() -> None:
    assert [ms(0.123), ms(12.345), ms(12345.6)] == ["0.12", "12.3", "12346"]
