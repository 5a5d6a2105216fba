from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests.report_html.histograms import distribution
from loadtests.report_html.html import escape, tag
from loadtests.report_html.scales import Scale, clock_step, linear, logarithmic
from loadtests.report_html.words import amount, clock, digits, milliseconds, share
from tests.unit.loadtests.simulated import latency


def test_tags_escape_what_is_no_markup() -> None:
    assert tag("b", "<i>", tag("i", "&"), None, [1, "x"], class_="a\"'") == (
        '<b class="a&quot;&#x27;">&lt;i&gt;<i>&amp;</i>1x</b>'
    )
    assert tag("line", x1=1.0, y_z=0.333333, hidden=True, style=None) == (
        '<line x1="1" y-z="0.33" hidden/>'
    )


@given(st.text())
def test_escaped_text_has_nothing_that_html_reads(text: str) -> None:
    assert not set(escape(text)) & set("<>\"'\x00\u202e")
    escape(text).encode()


@pytest.mark.parametrize(
    ("value", "said"),
    [(None, "–"), (0, "0"), (0.01234, "0.0123"), (99.96, "100"), (1234.5, "1,234"), (math.inf, "∞"),
     (5, "5"), (0.1, "0.1"), (-12.34, "-12.3"), (1e-7, "1.0e-07")],
)  # fmt: skip
def test_digits(value: float | None, said: str) -> None:
    assert digits(value) == said


def test_units() -> None:
    assert [milliseconds(v) for v in (0.05, 0.5, 12.3456, 999.9, 1500, 300_000)] == [
        "50 µs", "0.5 ms", "12.3 ms", "1,000 ms", "1.5 s", "5 min"
    ]  # fmt: skip
    assert [share(v) for v in (0, 0.5, 0.99999, 1, None)] == ["0%", "50%", "99.999%", "100%", "–"]
    assert [clock(v) for v in (5, 750, 3723)] == ["0:05", "12:30", "1:02:03"]
    assert [amount(v) for v in (None, 12.0, 2.5e6, 3e9)] == ["–", "12", "2.5 M", "3 G"]


@given(st.lists(st.floats(1e-3, 1e9), min_size=1), st.booleans())
def test_every_value_has_its_place_on_the_axis(values: list[float], log: bool) -> None:
    scale = logarithmic(values, 0, 100) if log else linear(values, 0, 100)
    places = [scale(value) for value in values]
    assert all(0 <= place <= 100 for place in places)
    assert sorted(places) == [scale(value) for value in sorted(values)]
    assert scale.low <= min(values) * (1 + 1e-9)
    assert scale.high >= max(values) * (1 - 1e-9)
    ticks = scale.ticks(5)
    assert len(ticks) <= 14
    assert all(scale.low * 0.999 <= tick <= scale.high * 1.001 for tick in ticks)


def test_ticks() -> None:
    assert Scale(0, 40, 0, 1).ticks(4) == [0, 10, 20, 30, 40]
    assert Scale(10, 1000, 0, 1, log=True).ticks(4) == [10, 30, 100, 300, 1000]
    assert Scale(10, 50, 0, 1, log=True).ticks(4) == [10, 20, 50]
    assert clock_step(200, 8) == 30
    assert clock_step(3600, 360) == 10


def test_a_histogram_gives_back_its_distribution() -> None:
    made = latency([number / 1000 for number in range(1, 1001)])
    assert made
    values = distribution(made)
    assert values.total == 1000
    assert values.share_up_to(250.2) == pytest.approx(0.25, abs=0.002)
    assert values.share_up_to(0.5) == 0
    for percentile in (0.0, 0.5, 0.9, 0.99, 0.999, 1.0):
        assert values.percentile(percentile) == pytest.approx(max(1, 1000 * percentile), rel=0.002)
