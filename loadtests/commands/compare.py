"""`loadtest compare`: is B better, worse, or is it noise?"""

from __future__ import annotations

import sys
from pathlib import Path

import click
from rich.console import Console

from loadtests.compare import Comparison, Incomparable, Run, Unreadable, read_run
from loadtests.compare import compare as compare_runs
from loadtests.compare.output import Shown, html

EXIT_FAILED_ON, EXIT_USAGE, EXIT_INCOMPARABLE = 1, 2, 3
FOLDER = click.Path(exists=True, path_type=Path)


@click.command(
    epilog="""\b
Examples:
  loadtest compare before after
  loadtest compare before after --fail-on worse          a gate in CI
  loadtest compare -a a1 -a a2 -a a3 -b b1 -b b2 -b b3   several runs of each

\b
Exit status:
  0  compared, and nothing that --fail-on names
  1  what --fail-on names
  2  a folder that is no run's
  3  the runs must not be compared: other scenarios or seeds, or an invalid run
"""
)
@click.argument("folders", nargs=-1, type=FOLDER, metavar="A B")
@click.option("-a", "more_a", multiple=True, type=FOLDER, metavar="FOLDER", help="A run of A.")
@click.option("-b", "more_b", multiple=True, type=FOLDER, metavar="FOLDER", help="A run of B.")
@click.option(
    "--confidence",
    type=click.FloatRange(0.5, 0.9999),
    default=0.95,
    show_default=True,
    help="That nothing said to be better or worse is noise.",
)
@click.option(
    "--smallest",
    type=click.FloatRange(0, 1),
    default=0.02,
    show_default=True,
    help="Differences of latencies and rates below this part are no news.",
)
@click.option(
    "--fail-on",
    type=click.Choice(["worse", "better", "any"]),
    help="Exit with 1 if there is such a difference.",
)
@click.option("--force", is_flag=True, help="Compare what should not be compared; it is labelled.")
@click.option("--full", is_flag=True, help="Show every line of the cuts too.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@click.option(
    "--html", "page", type=click.Path(dir_okay=False, path_type=Path), help="Write a page too."
)
def compare(
    folders: tuple[Path, ...],
    more_a: tuple[Path, ...],
    more_b: tuple[Path, ...],
    confidence: float,
    smallest: float,
    fail_on: str | None,
    force: bool,
    full: bool,
    as_json: bool,
    page: Path | None,
) -> None:
    """Compare two runs of one scenario by their folders, or several runs of each.

    Every measure gets its difference, an interval and a word: better, worse or noise.
    """
    if len(folders) not in (0, 2) or bool(folders) == bool(more_a or more_b):
        raise click.UsageError("give two folders, A and B; or several by -a FOLDER and -b FOLDER")
    if not folders and not (more_a and more_b):
        raise click.UsageError("give folders for both sides, by -a and by -b")
    try:
        a = _runs(more_a or folders[:1])
        b = _runs(more_b or folders[1:])
        found = compare_runs(a, b, confidence=confidence, smallest=smallest, force=force)
    except Unreadable as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(EXIT_USAGE)
    except Incomparable as error:
        click.echo("error: these runs must not be compared:", err=True)
        for reason in error.reasons:
            click.echo(f"  {reason}", err=True)
        if not force:
            click.echo("--force compares them all the same, where that is possible", err=True)
        sys.exit(EXIT_INCOMPARABLE)
    if page is not None:
        page.write_text(html(found), encoding="utf-8")
    if as_json:
        click.echo(found.model_dump_json(indent=2))
    else:
        Console(soft_wrap=False).print(Shown(found, full))
    sys.exit(EXIT_FAILED_ON if _fails(found, fail_on) else 0)


def _runs(folders: tuple[Path, ...]) -> list[Run]:
    return [read_run(folder) for folder in folders]


def _fails(found: Comparison, fail_on: str | None) -> bool:
    return bool(
        (fail_on in ("worse", "any") and found.worse)
        or (fail_on in ("better", "any") and found.better)
    )
