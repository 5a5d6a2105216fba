"""`loadtest merge`: the figures of a run that several machines have sent."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from loadtests.commands.options import out_option
from loadtests.commands.results import EXIT_FAILED, finish
from loadtests.run.state import CannotMerge, read_state
from loadtests.run.state import merge as merged


@click.command(
    epilog="""\b
Examples:
  loadtest merge loadtest-results/*/shard-*.state
  loadtest merge shard-*.state --out all

\b
Exit status: as of `loadtest run`; 4 if a shard is missing, there twice, or of
another run.
"""
)
@click.argument(
    "states",
    nargs=-1,
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
)
@out_option("loadtest-results/merged", "Where summary.json and report.html go.")
def merge(states: tuple[Path, ...], out: Path | None) -> None:
    """Put the STATES of all shards of a run together.

    Merging is exact: percentiles are those that one machine would have had.
    """
    folder = out or Path("loadtest-results/merged")
    try:
        summary = merged([read_state(path) for path in states])
        folder.mkdir(parents=True, exist_ok=True)
        status = finish(summary, folder)
    except (CannotMerge, OSError) as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(EXIT_FAILED)
    sys.exit(status)
