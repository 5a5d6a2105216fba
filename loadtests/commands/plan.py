"""`loadtest plan`: what a scenario would send."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from itertools import islice

import click

from loadtests.commands.options import AnyKey, reads_scenario
from loadtests.load.plan import schedule, sources
from loadtests.load.planned import Planned, Turns
from loadtests.load.traffic import Source
from loadtests.scenarios.arrivals import Closed, Phase
from loadtests.scenarios.model import Scenario

BARS = " ▁▂▃▄▅▆▇█"
COLUMNS = 60
# So many sessions are made whole, to say how long their prompts are.
SAMPLE = 500


@click.command(
    epilog="""\b
Examples:
  loadtest plan spike
  loadtest plan ./mine.yaml --rate-scale 10 --first 20
"""
)
@reads_scenario
@click.option(
    "--first",
    default=5,
    show_default=True,
    type=click.IntRange(0),
    metavar="N",
    help="How many requests to show of each phase.",
)
def plan(scenario: Scenario, first: int) -> None:
    """Show what SCENARIO would send, and when: it is computed and not sent.

    Counts and rates are exact, since they depend on the seed alone.
    """
    click.echo(f"{scenario.name}, seed {scenario.seed}: {scenario.about}")
    made = sources(scenario, AnyKey())
    start = 0.0
    for number, phase in enumerate(scenario.phases):
        note = "" if phase.counted else ", not counted"
        end = start + phase.seconds
        click.echo(f"\n{phase.name}: {start:g} to {end:g} s, {phase.arrivals.kind}{note}")
        shown = _closed if isinstance(phase.arrivals, Closed) else _open
        shown(scenario, number, phase, made, start)
        _sample(scenario, number, made, first)
        start = end
    for fault in scenario.faults:
        click.echo(f"\nat {fault.at_s:g} s, {fault.name}: {fault.command.strip()}")


def _closed(
    scenario: Scenario, number: int, phase: Phase, made: Mapping[str, Source], start: float
) -> None:
    assert isinstance(phase.arrivals, Closed)
    click.echo(
        f"  {phase.arrivals.concurrency} sessions at a time; how many depends on the service "
        "(a closed loop)"
    )


def _open(
    scenario: Scenario, number: int, phase: Phase, made: Mapping[str, Source], start: float
) -> None:
    columns = [0] * COLUMNS
    sessions, requests = Counter[str](), Counter[str]()
    for source, slot in schedule(scenario, number, made):
        assert slot.at_s is not None
        columns[min(COLUMNS - 1, int((slot.at_s - start) / phase.seconds * COLUMNS))] += 1
        sessions[source.name] += 1
        requests[source.name] += slot.turns
    count, turns = sessions.total(), requests.total()
    what = f"{count} requests" if count == turns else f"{count} sessions, {turns} requests"
    column_s = phase.seconds / COLUMNS
    top = max(columns)
    click.echo(
        f"  {what}; {count / phase.seconds:.2f} begin in a second on average, "
        f"{top / column_s:.2f} in the busiest {column_s:g} s"
    )
    click.echo(f"  |{''.join(_bar(each, top) for each in columns)}|")
    if len(sessions) > 1:
        click.echo(f"  {', '.join(f'{name} {each}' for name, each in requests.most_common())}")


def _bar(count: int, top: int) -> str:
    # What is there at all is seen.
    return BARS[0] if not count else BARS[max(1, round(count / top * (len(BARS) - 1)))]


def _sample(scenario: Scenario, number: int, made: Mapping[str, Source], first: int) -> None:
    some = [
        source.session(slot) for source, slot in islice(schedule(scenario, number, made), SAMPLE)
    ]
    turns = [turn for session in some for turn in session]
    if not turns:
        return
    models = Counter(turn.model for turn in turns)
    click.echo(
        f"  of the first {len(turns)} requests: output {_spread([t.max_tokens for t in turns])} "
        f"tokens, prompts {_spread([_size(turn) for turn in turns])} characters"
    )
    named = ", ".join(f"{name} {count}" for name, count in models.most_common(5))
    more = f" and {len(models) - 5} more" if len(models) > 5 else ""
    click.echo(f"  models: {named}{more}")
    for session in some[:first]:
        _show(session)


def _size(turn: Planned) -> int:
    return len(turn.system or "") + len(turn.prompt)


def _spread(values: list[int]) -> str:
    values = sorted(values)
    low, middle, high = values[0], values[len(values) // 2], values[-1]
    return str(low) if low == high else f"{low} to {high} (half below {middle})"


def _show(session: Turns) -> None:
    first = session[0]
    at = "     next" if first.due_s is None else f"{first.due_s:8.3f}s"
    more = f" +{len(session) - 1} turns" if len(session) > 1 else ""
    account = f" {first.account}" if first.account else ""
    leaves = ""
    if first.cancel_after_tokens is not None:
        leaves += f" leaves after {first.cancel_after_tokens} tokens"
    if first.cancel_after_s is not None:
        leaves += f" leaves after {first.cancel_after_s:.2f} s"
    if first.read_bytes_per_s is not None:
        leaves += f" reads {first.read_bytes_per_s:g} bytes/s"
    text = " ".join(first.prompt.split())
    click.echo(
        f"  {at} {first.traffic}{account} {first.model} {first.max_tokens} tokens{more}{leaves}: "
        f"{text[:40]}{'…' if len(text) > 40 else ''}"
    )
