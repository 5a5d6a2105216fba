from __future__ import annotations

import html.parser
import re
from typing import Any

import pytest

from loadtests.measure.summary import Count, Cut, Scrape, Second, Summary
from loadtests.report_html import render
from loadtests.report_html.server_metrics import metrics
from tests.unit.loadtests.simulated import HOSTILE, showcase

PARTS = (
    *("goals", "timeline", "load", "distributions", "cuts", "multiples", "errors", "server"),
    *("honesty", "counts", "scenario"),
)
VOID = {"meta", "link", "line", "path", "rect", "circle", "polygon", "br", "input"}


class Checker(html.parser.HTMLParser):
    """Tags close in order, and no attribute is a script's."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        assert not [name for name, _ in attrs if name.startswith("on")]
        assert not [
            value for name, value in attrs if name in ("src", "href") and "script" in str(value)
        ]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def checked(summary: Summary) -> str:
    text = render(summary)
    checker = Checker()
    checker.feed(text)
    assert checker.open == []
    assert not checker.tags & {"img", "iframe", "object", "base", "form"}
    assert "http-equiv" in text
    text.encode()
    return text


def changed(**fields: Any) -> Summary:
    return showcase(False).model_copy(update=fields)


def test_everything_of_a_run_is_in_its_report() -> None:
    text = checked(showcase(False))
    for part in PARTS:
        assert f'<section id="{part}"' in text
        assert f'href="#{part}"' in text
    for said in (
        "knee",
        "kill a replica",
        "service time",
        "64 unexplained",
        "2 cores",
        "name: ramp",
    ):
        assert said in text
    assert 'class="banner' not in text


def test_hostile_names_are_escaped() -> None:
    text = checked(showcase(True))
    assert text.count("<script>") == 1, "the page's own"
    assert "&lt;script&gt;window.hacked" in text
    for name in HOSTILE[:2]:
        assert name not in text
    assert "\u202e" not in text
    assert "\x00" not in text


def test_an_invalid_run_says_so_before_anything_else() -> None:
    text = checked(changed(invalid=["the client lagged by 40 ms at p99"]))
    banner = text.index("This run is invalid")
    assert banner < text.index('class="tiles"')
    assert text.index("the client lagged by 40 ms") < text.index('class="tiles"')
    assert "The run is valid" not in text


def test_a_closed_loop_is_labelled() -> None:
    first, *others = showcase(False).phases
    closed = first.model_copy(update={"closed_loop": True, "configured_rate": None})
    text = checked(changed(phases=[closed, *others]))
    assert "Closed loop" in text
    assert text.index("Closed loop") < text.index('class="tiles"')


def test_a_run_of_nothing_has_a_report() -> None:
    empty: dict[str, Any] = dict.fromkeys(
        ("ttft", "tpot", "gap", "e2e", "service_ttft", "service_e2e", "lag")
    )
    cut = showcase(False).cuts[0].model_copy(
        update={**empty, "requests": 0, "outcomes": {}, "errors": {}, "good": 0, "checked": 0}
    )  # fmt: skip
    text = checked(
        changed(cuts=[cut], timeline=[], loads=[], scrapes=[], counts=[], marks=[], verdicts=[])
    )
    assert "Nothing was measured" in text


def test_an_hour_with_a_thousand_models_is_below_two_megabytes() -> None:
    made = showcase(False)
    of = next(cut for cut in made.cuts if cut.model)
    cuts: list[Cut] = [made.cuts[0]] + [
        of.model_copy(update={"model": f"tiny-llama.customer-{n:04}.260101-120000"})
        for n in range(1000)
    ]
    second = made.timeline[100]
    timeline: list[Second] = [second.model_copy(update={"at_s": at}) for at in range(3600)]
    samples = [(5.0 * n, float(n % 97)) for n in range(720)]
    scrapes = [
        Scrape(target=f"10.0.0.{target}:8080", name=f"waiting_{n}", labels={}, samples=samples)
        for target in range(10)
        for n in range(40)
    ]
    text = checked(changed(cuts=cuts, timeline=timeline, scrapes=scrapes, seconds=3600.0))
    assert len(text.encode()) < 2_000_000
    assert len(re.findall(r"customer-\d{4}", text)) >= 1000, "all of them are in it"
    assert "Each point has 10 seconds" in text


@pytest.mark.parametrize("samples", [[(0.0, 0.0), (10.0, 100.0), (20.0, 150.0), (30.0, 50.0)]])
def test_a_counter_is_shown_as_a_rate_that_a_restart_does_not_turn_negative(
    samples: list[tuple[float, float]],
) -> None:
    counter = Scrape(target="a", name="requests_total", labels={}, samples=samples)
    text = checked(changed(scrapes=[counter]))
    table = text[text.index("requests_total (per second)") :]
    rates = re.findall(r"<td>([\d.]+)</td>", table[: table.index("</table>")])
    assert {float(rate) for rate in rates} == {10.0, 5.0}


def test_a_distribution_is_shown_by_its_mean_between_two_readings() -> None:
    """A reading that is as the one before was left out, and where nothing came is no mean."""
    of = {"target": "a", "labels": {"model": "m"}}
    count = [(0.0, 0.0), (10.0, 4.0), (20.0, 4.0), (30.0, 6.0)]
    total = [(0.0, 0.0), (10.0, 2.0), (30.0, 2.5)]
    scrapes = [
        Scrape(name="queue_seconds_count", samples=count, **of),
        Scrape(name="queue_seconds_sum", samples=total, **of),
        Scrape(name="queue_seconds_bucket", samples=count, **of),
        Scrape(name="cache_config_info", samples=[(0.0, 1.0), (30.0, 1.0)], **of),
    ]
    (metric,) = metrics(scrapes)
    assert metric.name == "queue_seconds, mean"
    assert metric.lines == [("a model=m", [(10.0, 500.0), (30.0, 250.0)])]
    assert [metric.words(value) for _, value in metric.lines[0][1]] == ["500 ms", "250 ms"]
    text = checked(changed(scrapes=scrapes))
    assert "queue_seconds, mean (time)" in text
    assert "cache_config_info" not in text


def test_callers_that_left_are_neither_good_nor_bad() -> None:
    cut = showcase(hostile=False).cuts[0]
    left = {"outcomes": {"ok": 30, "cancelled": 70}, "requests": 100, "good": 30}
    text = checked(changed(cuts=[cut.model_copy(update=left)]))
    assert "100% good" in text
    nobody = {"outcomes": {"cancelled": 100}, "requests": 100, "good": 0}
    assert "– good" in checked(changed(cuts=[cut.model_copy(update=nobody)]))


def test_a_difference_that_is_explained_is_not_called_equal() -> None:
    counts = [
        Count(
            what=what,
            model=None,
            client=3,
            server=server,
            explained=1,
            note=note,
            source="the ledger",
        )
        for what, server, note in (("a", 3, ""), ("b", 4, "why"), ("c", 9, "what"))
    ]
    text = checked(changed(counts=counts))
    assert re.findall(r"<td[^>]*>(equal|explained|\d+ unexplained)<", text) == [
        "5 unexplained", "equal", "explained"
    ]  # fmt: skip
    assert "the ledger: why" in text
