"""`serving usage`: what is asked for, and how it is shown."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from serving.cli.usage import bar
from tests.unit.cli.conftest import Recorder, run


def row(tokens: int, **own: Any) -> dict[str, Any]:
    counts = {"requests": 2, "usage_unknown": 0, "cached_tokens": 1, "images": 0, "total_s": 1.5}
    split = {"prompt_tokens": tokens - 1, "completion_tokens": 1, "total_tokens": tokens}
    return counts | split | own


def answer(*items: dict[str, Any], **total: Any) -> dict[str, Any]:
    summed = row(sum(item["total_tokens"] for item in items) or 1, requests=2 * len(items))
    times = {"start_date": "2026-11-01T00:00:00+00:00", "end_date": "2026-12-01T00:00:00+00:00"}
    return {"items": list(items), "total": summed | total, "group_by": ["model"]} | times


def test_it_asks_for_the_last_thirty_days_by_day() -> None:
    recorder = Recorder(answer())
    before = datetime.now(UTC)
    assert run(recorder, "usage").exit_code == 0
    query = recorder.request.url.params
    assert recorder.request.url.path == "/v4/usage"
    assert query["group_by"] == "day"
    since = datetime.fromisoformat(query["start_date"])
    assert timedelta(0) <= since - (before - timedelta(days=30)) < timedelta(minutes=1)
    # The sums of the present hour are among those that are asked for.
    assert datetime.fromisoformat(query["end_date"]) > before + timedelta(minutes=59)


def test_what_is_given_is_asked_for() -> None:
    recorder = Recorder(answer())
    args = ("--by", "account, model", "--from", "2026-11-01", "--to", "2026-12-01")
    more = ("--account", "acme", "--key", "k1", "--model", "a&b")
    assert run(recorder, "usage", *args, *more).exit_code == 0
    assert dict(recorder.request.url.params) == {
        "group_by": "account,model",
        "start_date": "2026-11-01T00:00:00+00:00",
        "end_date": "2026-12-01T00:00:00+00:00",
        "account_id": "acme",
        "key": "k1",
        "model": "a&b",
    }


@pytest.mark.parametrize("args", [("--by", "colour"), ("--last", "soon"), ("--from", "soon")])
def test_wrong_usage(args: tuple[str, ...]) -> None:
    assert run(Recorder(answer()), "usage", *args).exit_code == 2


def test_a_row_for_each_group_a_bar_and_the_total() -> None:
    recorder = Recorder(answer(row(100, model="tiny"), row(50, model="other"), row(1, model="")))
    result = run(recorder, "usage", "--by", "model")
    header, *rows, total = result.output.splitlines()
    assert header.split() == [
        "MODEL", "REQUESTS", "PROMPT", "TOKENS", "CACHED", "TOKENS", "COMPLETION", "TOKENS",
        "TOTAL", "TOKENS",
    ]  # fmt: skip
    assert rows[0].split() == ["tiny", "2", "99", "1", "1", "100", "█" * 40]
    assert rows[1].split() == ["other", "2", "49", "1", "1", "50", "█" * 20]
    assert rows[2].split()[0] == "-"
    assert total.split() == ["total", "6", "150", "1", "1", "151"]


def test_days_and_hours_are_short() -> None:
    at = "2026-11-29T13:00:00+00:00"
    by_day = run(Recorder(answer(row(5, day=at))), "usage")
    assert "2026-11-29  " in by_day.output
    by_hour = run(Recorder(answer(row(5, hour=at))), "usage", "--by", "hour")
    assert "2026-11-29 13:00" in by_hour.output


def test_nothing_and_what_is_not_known_are_said() -> None:
    result = run(Recorder(answer(usage_unknown=3)), "usage")
    assert "nothing was used" in result.output
    assert "3 requests more" in result.output


def test_the_answer_itself() -> None:
    result = run(Recorder(answer(row(5, day="2026-11-29T00:00:00+00:00"))), "usage", "--json")
    assert json.loads(result.output)["items"][0]["total_tokens"] == 5


@pytest.mark.parametrize(
    ("value", "shown"), [(0, ""), (8, "█" * 40), (1, "█" * 5), (3, "█" * 15), (-1, "")]
)
def test_bars(value: int, shown: str) -> None:
    assert bar(max(0, value), 8) == shown
    assert bar(value, 0) == ""
    assert bar(1, 300) == "▏"
