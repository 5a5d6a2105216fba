"""`loadtest capacity`: how much a service can bear."""

from __future__ import annotations

import math
import sys
import time
from pathlib import Path

import click
from pydantic import ValidationError

from loadtests.capacity import Objective, Plan, Result, Trial, search
from loadtests.capacity.model import Judgement
from loadtests.capacity.output import conclusion, html
from loadtests.capacity.stepping import Stepper, at_rate
from loadtests.commands.options import out_option, reads_scenario, sends
from loadtests.compare import Unreadable
from loadtests.loop import run as run_loop
from loadtests.output.live import Live
from loadtests.run.conduct import conduct
from loadtests.run.processes import ProcessFailed
from loadtests.scenarios.model import Scenario
from loadtests.scenarios.write import to_yaml

EXIT_NOTHING, EXIT_USAGE, EXIT_FAILED = 1, 2, 4


class Progress:
    """Tells each step on stderr."""

    def __init__(self, path: Path, done: list[Trial]) -> None:
        self._path, self._old = path, len(done)
        self._count = 0

    def began(self, rate: float, seconds: float, why: str) -> None:
        old = " (from before)" if self._count < self._old else ""
        click.echo(f"{rate:10.4g}/s for {seconds:.0f} s: {why}{old}", err=True)

    def ended(self, trial: Trial, excess: float) -> None:
        self._count += 1
        with self._path.open("a", encoding="utf-8") as steps:
            steps.write(trial.model_dump_json() + "\n")
        if math.isnan(excess):
            click.echo(f"           no evidence: {'; '.join(trial.invalid)}", err=True)
            return
        said = "meets" if excess <= 1 else "misses"
        bad = ", ".join(f"{sum(c.bad)} bad of {sum(c.sizes)}" for c in trial.counts)
        click.echo(f"           this step {said} it: {bad}", err=True)

    def judged(self, rate: float, judgement: Judgement) -> None:
        said = "it cannot be told" if judgement == "open" else f"{judgement}, for sure"
        click.echo(f"{rate:10.4g}/s: {said}", err=True)


@click.command(
    epilog="""\b
Examples:
  loadtest capacity steady --slo ttft_p99=500ms --low 2 --high 200
  loadtest capacity ./mine.yaml --slo ttft_p99=500ms --slo error_share=1% --budget 7200
  loadtest capacity steady --slo e2e_p95=8s --out found   again: goes on where it ended

\b
An objective allows a share of requests to be bad: ttft_p99=500ms is 1% later than
500 ms. Failed and rejected requests are later than any limit.

\b
Writes into --out: capacity.json, capacity.html, steps.jsonl and a folder per step.

\b
Exit status:
  0  a rate was found that meets the objectives
  1  none was
  2  a mistake in the arguments or the scenario
  4  it could not run, or was ended before its time
"""
)
@reads_scenario
@click.option("--slo", "slos", multiple=True, required=True, metavar="MEASURE=LIMIT")
@click.option(
    "--low",
    type=click.FloatRange(min=0, min_open=True),
    default=1.0,
    show_default=True,
    help="Sessions per second to begin with.",
)
@click.option(
    "--high",
    type=click.FloatRange(min=0, min_open=True),
    default=1000.0,
    show_default=True,
    help="It goes no further.",
)
@click.option("--confidence", type=click.FloatRange(0.5, 0.999), default=0.95, show_default=True)
@click.option(
    "--resolution",
    type=click.FloatRange(0.01, 0.5),
    default=0.05,
    show_default=True,
    help="How near the rates are that it stops at.",
)
@click.option(
    "--step-seconds",
    type=click.FloatRange(min=5),
    default=60.0,
    show_default=True,
    help="Of a step, without its warm-up; some are longer.",
)
@click.option("--warm-seconds", type=click.FloatRange(min=1), default=10.0, show_default=True)
@click.option(
    "--budget",
    type=click.FloatRange(min=1),
    default=3600.0,
    show_default=True,
    metavar="SECONDS",
    help="Of load, all steps together.",
)
@sends
@out_option("loadtest-results/SCENARIO-capacity-TIME")
def capacity(
    scenario: Scenario,
    keys: dict[str, str],
    slos: tuple[str, ...],
    low: float,
    high: float,
    confidence: float,
    resolution: float,
    step_seconds: float,
    warm_seconds: float,
    budget: float,
    out: Path | None,
) -> None:
    """Search the highest rate at which a service meets its objectives under SCENARIO's traffic.

    The rate is of sessions that begin per second, in an open loop. The result is an interval: at
    its lower end the objectives are met, at its upper end they are not, with this confidence.
    """
    try:
        objectives = [Objective.parse(slo) for slo in slos]
        at_rate(scenario, low, step_seconds, warm_seconds, scenario.seed)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    if high < low:
        raise click.UsageError("--high is below --low")
    stamp = time.strftime("%Y%m%d-%H%M%S")
    folder = out or Path("loadtest-results") / f"{scenario.name}-capacity-{stamp}"
    folder.mkdir(parents=True, exist_ok=True)

    def conducted(step: Scenario, where: Path) -> None:
        where.mkdir(parents=True, exist_ok=True)
        (where / "scenario.yaml").write_text(to_yaml(step), encoding="utf-8")
        with Live(step) as live:
            run_loop(conduct(step, keys, live, where))

    plan = Plan(
        objectives=list(slos),
        low=low,
        high=high,
        confidence=confidence,
        resolution=resolution,
        seconds=step_seconds,
        budget_s=budget,
    )
    steps = folder / "steps.jsonl"
    try:
        done = read_steps(steps)
        steps.write_text("", encoding="utf-8")
        runner = Stepper(scenario, objectives, conducted, folder, warm_seconds)
        result = search(scenario.name, plan, runner, Progress(steps, done), done)
    except (ProcessFailed, Unreadable, OSError) as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(EXIT_FAILED)
    write(result, folder)
    click.echo(conclusion(result))
    click.echo(f"{result.ended}; {folder / 'capacity.html'}", err=True)
    sys.exit(0 if result.meets is not None else EXIT_NOTHING)


def read_steps(path: Path) -> list[Trial]:
    """The steps of an earlier search; none that cannot be read, as one that was cut off."""
    if not path.exists():
        return []
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            found.append(Trial.model_validate_json(line))
        except ValidationError:
            break
    return found


def write(result: Result, folder: Path) -> None:
    """Leave the result as JSON and as a page."""
    (folder / "capacity.json").write_text(result.model_dump_json(indent=2), encoding="utf-8")
    (folder / "capacity.html").write_text(html(result), encoding="utf-8")
