"""What a run leaves behind: a report, its figures in the terminal, and its exit status."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from loadtests.measure.summary import Summary
from loadtests.output.summary_file import write_summary
from loadtests.output.text import table
from loadtests.report_html import render

EXIT_MISSED, EXIT_INVALID, EXIT_FAILED = 1, 3, 4


def finish(summary: Summary, folder: Path) -> int:
    """Write summary.json and report.html, show the figures, and return the exit status.

    An invalid run tells nothing about goals. Raises OSError.
    """
    write_summary(summary, folder / "summary.json")
    (folder / "report.html").write_text(render(summary), encoding="utf-8")
    console = Console()
    if not console.is_terminal:  # a log: 80 columns would break long model IDs
        console = Console(width=120)
    console.print(table(summary))
    console.print(f"\nreport: {folder / 'report.html'}", highlight=False, soft_wrap=True)
    if summary.invalid:
        return EXIT_INVALID
    return EXIT_MISSED if any(not verdict.met for verdict in summary.verdicts) else 0
