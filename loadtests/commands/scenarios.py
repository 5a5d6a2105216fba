"""`loadtest scenarios`: what comes with the program."""

from __future__ import annotations

import click

from loadtests.scenarios.read import SHIPPED, read_scenario, shipped


@click.command(
    epilog="""\b
Examples:
  loadtest scenarios
  loadtest scenarios --show spike > ./mine.yaml   a start for one of your own
"""
)
@click.option(
    "--show",
    type=click.Choice(shipped(), case_sensitive=False),
    metavar="NAME",
    help="Print the file of one of them.",
)
def scenarios(show: str | None) -> None:
    """List the scenarios that come with the program, with what each is for."""
    if show is not None:
        click.echo((SHIPPED / f"{show}.yaml").read_text(encoding="utf-8"), nl=False)
        return
    width = max(len(name) for name in shipped())
    for name in shipped():
        scenario = read_scenario(name)
        seconds = sum(phase.seconds for phase in scenario.phases)
        first, *rest = click.wrap_text(scenario.about, 74 - width).splitlines() or [""]
        click.echo(f"{name:{width}}  {seconds:4.0f} s  {first}")
        for line in rest:
            click.echo(" " * (width + 10) + line)
