"""`loadtest report`: make a run's page again."""

from __future__ import annotations

import sys
from pathlib import Path

import click
from pydantic import ValidationError

from loadtests.measure.summary import Summary
from loadtests.report_html import render

EXIT_USAGE = 2


@click.command(
    epilog="""\b
Examples:
  loadtest report loadtest-results/smoke-20260101-120000
  loadtest report night/summary.json --out night.html
"""
)
@click.argument("run", type=click.Path(exists=True, path_type=Path), metavar="FOLDER")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Where the page goes.  [default: report.html beside the summary]",
)
def report(run: Path, out: Path | None) -> None:
    """Make the HTML report of a run from its summary.json."""
    path = run if run.is_file() else run / "summary.json"
    try:
        summary = Summary.model_validate_json(path.read_bytes())
    except OSError as error:
        click.echo(f"error: {path}: {error.strerror}", err=True)
        sys.exit(EXIT_USAGE)
    except ValidationError as error:
        click.echo(f"error: {path} is no summary of this version of loadtest: {error}", err=True)
        sys.exit(EXIT_USAGE)
    target = out or path.with_name("report.html")
    target.write_text(render(summary), encoding="utf-8")
    click.echo(target)
