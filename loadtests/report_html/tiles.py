"""The few figures at the top of a report."""

from __future__ import annotations

from loadtests.measure.summary import Cut, Latency, Summary
from loadtests.report_html.html import Markup, tag
from loadtests.report_html.words import amount, digits, milliseconds, share


def tiles(summary: Summary) -> Markup:
    """The whole run in ten figures at most."""
    cut = summary.cuts[0]
    bad = cut.requests - cut.outcomes.get("ok", 0) - cut.outcomes.get("cancelled", 0)
    shown = [
        ("Requests", digits(cut.requests, 9), f"{digits(cut.requests_per_s)} per s"),
        _latency_tile("First token p50", cut.ttft, "p50", cut.service_ttft),
        _latency_tile("First token p99", cut.ttft, "p99", cut.service_ttft),
        _latency_tile("Per token p50", cut.tpot, "p50", None),
        _latency_tile("End to end p99", cut.e2e, "p99", cut.service_e2e),
        (
            "Tokens/s",
            amount(cut.tokens_per_s),
            f"{digits(cut.completion_tokens, 12)} tokens",
        ),
        ("Goodput/s", digits(cut.goodput_per_s), f"{share(cut.good_share)} good"),
        ("Not ok", share(_part(bad, cut)), f"{digits(bad, 9)} requests"),
    ]
    if cut.checked:
        shown.append(
            ("Wrong answers", digits(cut.wrong, 9), f"of {digits(cut.checked, 9)} checked")
        )
    return tag(
        "dl",
        [
            tag(
                "div",
                tag("dt", name),
                tag("dd", value),
                tag("dd", note, class_="note"),
                class_="tile",
            )
            for name, value, note in shown
        ],
        class_="tiles",
    )


def _latency_tile(
    name: str, latency: Latency | None, percentile: str, service: Latency | None
) -> tuple[str, str, str]:
    def value(of: Latency | None) -> str:
        return milliseconds(getattr(of, percentile)) if of and of.count else "–"

    return (name, value(latency), f"service {value(service)}" if service else "\u00a0")


def _part(count: int, cut: Cut) -> float:
    return count / cut.requests if cut.requests else 0.0
