"""A search for people: a sentence, and a page with latency against rate."""

from __future__ import annotations

from collections.abc import Sequence

from loadtests.capacity.model import Result, Trial
from loadtests.capacity.objective import Objective
from loadtests.report_html.chart import Chart, Rule, Series
from loadtests.report_html.figure import figure
from loadtests.report_html.html import Markup, identifier, markup, tag
from loadtests.report_html.page import page, section
from loadtests.report_html.tables import Cell, table
from loadtests.report_html.words import digits, milliseconds, share


def conclusion(result: Result) -> str:
    """What was found, in one sentence."""
    sure = f"with {result.plan.confidence:.0%} confidence"
    meets, fails = result.meets, result.fails
    if meets is not None and fails is not None:
        return f"The capacity is between {digits(meets)} and {digits(fails)} per second, {sure}."
    if meets is not None:
        return f"The capacity is at least {digits(meets)} per second, {sure}."
    if fails is not None:
        return f"The capacity is below {digits(fails)} per second, {sure}."
    return f"Nothing can be said {sure}."


def html(result: Result) -> str:
    """A page of its own, which asks no network."""
    objectives = [Objective.parse(text) for text in result.plan.objectives]
    facts = {
        "objectives": ", ".join(result.plan.objectives),
        "likeliest": "–" if result.estimate is None else f"{digits(result.estimate)} per second",
        "ended": result.ended,
        "load, in all": f"{digits(result.spent_s)} s in {len(result.trials)} steps",
    }
    charts = [_chart(result, objective, n) for n, objective in enumerate(objectives)]
    return page(
        f"{result.scenario}: capacity",
        markup(
            tag("h1", "Capacity: ", identifier(result.scenario)),
            tag("p", tag("b", conclusion(result))),
            tag("dl", [(tag("dt", k), tag("dd", v)) for k, v in facts.items()], class_="facts"),
        ),
        [
            _bound(result),
            section("rates", "Steps", tag("p", HOW), charts),
            section("steps", "Every step", _steps(result.trials, objectives)),
        ],
    )


HOW = (
    "Each point is a step: a rate that was held, after a warm-up, with its interval of 95%. Rates "
    "are sessions that begin per second. Failed and rejected requests count as too late. The red "
    "lines are the objective and the two rates that the capacity lies between."
)


def _bound(result: Result) -> Markup | None:
    if result.client_bound is None:
        return None
    return tag(
        "div",
        tag("h2", "The client was the limit"),
        tag(
            "p",
            f"It could not offer {digits(result.client_bound)} per second. Steps in which it was "
            "too late are no evidence and are not drawn; use more processes or machines.",
        ),
        class_="banner warn",
    )


def _chart(result: Result, objective: Objective, number: int) -> Markup:
    trials = sorted(
        (trial for trial in result.trials if not trial.invalid), key=lambda trial: trial.rate
    )
    counts = [trial.counts[number] for trial in trials]
    words = milliseconds if objective.latency else share
    limit = objective.limit_ms if objective.limit_ms is not None else objective.allowed
    rules = [Rule(limit, objective.text, "y")]
    if result.meets is not None:
        rules.append(Rule(result.meets, f"meets {digits(result.meets)}"))
    if result.fails is not None:
        rules.append(Rule(result.fails, f"fails {digits(result.fails)}"))
    return figure(
        Chart(
            objective.text,
            [trial.rate for trial in trials],
            [
                Series(
                    objective.text.partition("=")[0],
                    [count.value for count in counts],
                    points=True,
                    joined=False,
                    low=[count.value_low for count in counts],
                    high=[count.value_high for count in counts],
                )
            ],
            "sessions per second",
            "latency" if objective.latency else "share",
            y_kind="log" if objective.latency else "linear",
            y_words=words,
            rules=rules,
            height=320,
        )
    )


def _steps(trials: Sequence[Trial], objectives: Sequence[Objective]) -> Markup:
    rows = []
    for number, trial in enumerate(trials, 1):
        cells = [
            Cell(str(number), number),
            Cell(digits(trial.rate, 4), trial.rate),
            Cell(digits(trial.seconds, 4), trial.seconds),
        ]
        for objective, counts in zip(objectives, trial.counts, strict=True):
            words = milliseconds if objective.latency else share
            bad, size = sum(counts.bad), sum(counts.sizes)
            cells += [
                Cell(words(counts.value), counts.value),
                Cell(f"{digits(bad, 9)} of {digits(size, 9)}", bad),
            ]
        cells.append(Cell("; ".join(trial.invalid) or "valid", kind="bad" if trial.invalid else ""))
        rows.append(cells)
    names = [name for each in objectives for name in (each.text, "bad requests")]
    return table("Every step", ["step", "rate", "seconds", *names, "client"], rows)
