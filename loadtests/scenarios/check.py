"""What a scenario's fields must be to each other, and the files that it names."""

from __future__ import annotations

from collections.abc import Iterator

from loadtests.load.traces import check as check_trace
from loadtests.scenarios.arrivals import Closed, Phase, Ramp, Step, Trace
from loadtests.scenarios.check_traffic import Problem, check_traffic, unique, usable
from loadtests.scenarios.explain import nearest
from loadtests.scenarios.goals import MEASURES, STREAMED
from loadtests.scenarios.model import Goal, Scenario
from loadtests.scenarios.source import Path


def check(scenario: Scenario) -> Iterator[Problem]:
    """Yield what is wrong: the path of the field, and words that say how to mend it."""
    for field in ("phases", "traffic", "faults"):
        yield from unique(field, [each.name for each in getattr(scenario, field)])
    for number, phase in enumerate(scenario.phases):
        yield from _phase(("phases", number), phase, scenario)
    if not any(phase.counted for phase in scenario.phases):
        yield ("phases",), "none is counted; leave out `counted: false` in one of them"
    known = {traffic.name for traffic in scenario.traffic}
    sent = {name for phase in scenario.phases for name in (phase.traffic or known)}
    for number, traffic in enumerate(scenario.traffic):
        yield from check_traffic(("traffic", number), traffic)
        # A name that is misspelt in a phase is told there.
        if traffic.name not in sent and sent <= known:
            yield (
                ("traffic", number),
                f"no phase sends {traffic.name!r}; name it in `traffic` of one, or leave it out",
            )
    end = sum(phase.seconds for phase in scenario.phases)
    for number, fault in enumerate(scenario.faults):
        if fault.at_s >= end:
            yield (
                ("faults", number, "at_s"),
                f"the run is over after {end:g} s; make it less, or a phase longer",
            )
    for number, goal in enumerate(scenario.goals):
        yield from _goal(("goals", number), goal, scenario)


def _phase(path: Path, phase: Phase, scenario: Scenario) -> Iterator[Problem]:
    known = [traffic.name for traffic in scenario.traffic]
    for number, name in enumerate(phase.traffic or ()):
        if name not in known:
            yield (*path, "traffic", number), f"there is no traffic {name!r}{nearest(name, known)}"
    if phase.traffic == ():
        yield (*path, "traffic"), "is empty; name some traffic, or leave it out for all of it"
    match phase.arrivals:
        case Ramp(start=0, end=0):
            yield (*path, "arrivals", "end"), "the rate stays 0; make `start` or `end` more"
        case Step(rates=rates):
            for number, rate in enumerate(rates):
                if not 0 <= rate < float("inf"):
                    yield (
                        (*path, "arrivals", "rates", number),
                        f"must be 0 or more, and is {rate:g}",
                    )
            if not any(rates):
                yield (*path, "arrivals", "rates"), "all are 0; make one of them more"
        case Closed(concurrency=concurrency) if concurrency < scenario.client.processes:
            yield (
                (*path, "arrivals", "concurrency"),
                f"is less than the {scenario.client.processes} processes that share it; make it at "
                "least as many, or `client.processes` fewer",
            )
        case Trace() as trace:
            yield from usable((*path, "arrivals", "path"), lambda: check_trace(trace))
            yield from _with_trace(phase, scenario)


def _with_trace(phase: Phase, scenario: Scenario) -> Iterator[Problem]:
    """Yield what a trace says itself and traffic says too."""
    for number, traffic in enumerate(scenario.traffic):
        if phase.traffic is None or traffic.name in phase.traffic:
            for field, has in (
                ("session", traffic.session is not None),
                ("shared_prefix", traffic.shared_prefix is not None),
            ):
                if has:
                    yield (
                        ("traffic", number, field),
                        f"phase {phase.name!r} replays a trace, whose requests stand alone and are "
                        "whole; leave this out, or keep this traffic out of the phase",
                    )
            if traffic.prompt.file is not None:
                yield (
                    ("traffic", number, "prompt", "file"),
                    f"phase {phase.name!r} replays a trace, which says how long prompts are; leave "
                    "this out, or keep this traffic out of the phase",
                )


def _goal(path: Path, goal: Goal, scenario: Scenario) -> Iterator[Problem]:
    if goal.measure not in MEASURES:
        yield (
            (*path, "measure"),
            f"there is no measure {goal.measure!r}{_nearest_measure(goal.measure)}",
        )
    if goal.at_most is None and goal.at_least is None:
        yield path, "has no bar; write `at_most:` or `at_least:`"
    traffic = [t for t in scenario.traffic if goal.traffic in (None, t.name)]
    accounts = {account.name for each in traffic for account in each.accounts}
    for field, value, known in (
        ("traffic", goal.traffic, {each.name for each in scenario.traffic}),
        ("phase", goal.phase, {each.name for each in scenario.phases}),
        ("account", goal.account, accounts),
    ):
        if value is not None and value not in known:
            yield (*path, field), f"there is no {field} {value!r}{nearest(value, known)}"
    listed = {model for each in traffic for model in each.models}
    custom = any(each.custom_ids is not None for each in traffic)
    if goal.model is not None and goal.model not in listed and not custom:
        yield (*path, "model"), f"no traffic asks for {goal.model!r}{nearest(goal.model, listed)}"
    for phase in scenario.phases:
        if phase.name == goal.phase and not phase.counted:
            yield (*path, "phase"), f"{phase.name!r} is not counted; leave out `counted: false`"
    if traffic and STREAMED.match(goal.measure) and not any(each.stream for each in traffic):
        yield (*path, "measure"), "whole answers have none; write `stream: true`, or take e2e"


def _nearest_measure(measure: str) -> str:
    close = nearest(measure, MEASURES)
    if "did you mean" in close:
        return close
    return "; it can be as ttft_p99_ms (ttft, tpot, gap, e2e), error_share or tokens_per_s"
