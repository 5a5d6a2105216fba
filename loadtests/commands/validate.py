"""`loadtest validate`: every mistake of a scenario, with its line."""

from __future__ import annotations

import click

from loadtests.commands.options import AnyKey, reads_scenario
from loadtests.load.plan import sources
from loadtests.scenarios.model import Scenario


@click.command(
    epilog="""\b
Examples:
  loadtest validate ./mine.yaml
  loadtest validate smoke --set traffic.0.output=128

\b
Exit status: 0 it can be run; 2 it cannot, and each line on stderr is a mistake:
  mine.yaml:9: traffic.0.promt: there is no such field; did you mean `prompt`?
"""
)
@reads_scenario
def validate(scenario: Scenario) -> None:
    """Check SCENARIO, a file or the name of one that comes with the program.

    Reads also the files that it names: traces, prompts, lengths, tokenizers. Sends nothing and
    needs no keys.
    """
    sources(scenario, AnyKey())
    seconds = sum(phase.seconds for phase in scenario.phases)
    click.echo(
        f"{scenario.name}: phases: {len(scenario.phases)} ({seconds:g} s), "
        f"traffic: {len(scenario.traffic)}, goals: {len(scenario.goals)}"
    )
