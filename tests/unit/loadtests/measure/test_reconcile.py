"""Each kind of difference: explained where something explains it, and else a finding."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import pytest

from loadtests.measure.aggregate import Aggregate
from loadtests.measure.reconcile import reconcile
from loadtests.measure.record import Outcome, Record
from loadtests.measure.scrape import Series, Snapshot
from loadtests.measure.server import ServerCounts, Tally
from loadtests.measure.summary import Count
from tests.unit.loadtests.measure.records import failed, streamed

ZERO = Snapshot(0.0, {})


def series(name: str, target: str = "r:1", **labels: str) -> Series:
    return target, name, tuple(sorted(labels.items()))


def serving(
    outcomes: Mapping[str, int],
    prompt: int = 0,
    completion: int = 0,
    *,
    model: str = "m",
    target: str = "r:1",
    **more: int,
) -> dict[Series, float]:
    found: dict[Series, float] = {
        series(
            "serving_requests_total",
            target,
            model=model,
            kind="base",
            endpoint="/v4/completions",
            outcome=outcome,
        ): count
        for outcome, count in {"ok": 0, **outcomes}.items()
    }
    found[series("serving_prompt_tokens_total", target, model=model)] = prompt
    found[series("serving_completion_tokens_total", target, model=model)] = completion
    for name, count in more.items():
        found[series(name, target, model=model)] = count
    return found


def vllm(reasons: Mapping[str, int], prompt: int = 0, completion: int = 0) -> dict[Series, float]:
    found: dict[Series, float] = {
        series("vllm:request_success_total", "e:1", model_name="m", finished_reason=reason): count
        for reason, count in reasons.items()
    }
    found[series("vllm:prompt_tokens_total", "e:1", model_name="m")] = prompt
    found[series("vllm:generation_tokens_total", "e:1", model_name="m")] = completion
    return found


def compare(
    records: list[Record],
    counters: Mapping[Series, float],
    before: Snapshot = ZERO,
    *,
    running: float = 0,
    lost: Mapping[str, str] | None = None,
) -> dict[str, Count]:
    aggregate = Aggregate({}, {})
    for record in records:
        aggregate.add(record)
    counts = reconcile(before, Snapshot(9.0, counters, running, lost or {}), aggregate)
    assert len({(count.what, count.model) for count in counts}) == len(counts)
    return {f"{c.what} {c.model}" if c.model else c.what: c for c in counts}


def findings(counts: Mapping[str, Count]) -> dict[str, int]:
    return {what: count.unexplained for what, count in counts.items() if count.unexplained}


def left(due_s: float = 0.0, events: int = 3, **fields: object) -> Record:
    """A caller that left after so many tokens, of 64."""
    return streamed(
        due_s,
        [0.1 * (n + 1) for n in range(events)],
        outcome=Outcome.CANCELLED,
        usage_seen=False,
        prompt_tokens=0,
        completion_tokens=0,
        **fields,
    )


def test_all_agree_to_the_token() -> None:
    records = [streamed(), streamed(1), failed(2), failed(3, 404), failed(4, 429)]
    counts = compare(records, serving({"ok": 2, "error": 1, "rejected": 2}, 20, 6))
    assert findings(counts) == {}
    assert {what: (count.client, count.server) for what, count in counts.items()} == {
        "requests": (5, 5),
        "requests ok": (2, 2),
        "requests cancelled": (0, 0),
        "requests failed": (3, 3),
        "prompt tokens": (20, 20),
        "completion tokens": (6, 6),
    }
    assert all(count.note == "" and count.explained == 0 for count in counts.values())
    assert counts["requests"].source == "metrics of the routers"


def test_warm_up_counts_and_what_was_before_does_not() -> None:
    before = Snapshot(0.0, serving({"ok": 7}, 70, 700))
    records = [streamed(counted=False, phase="warm"), streamed()]
    assert findings(compare(records, serving({"ok": 9}, 90, 706), before)) == {}


def test_routers_are_summed_and_engines_left_aside() -> None:
    counters = {
        **serving({"ok": 1}, 10, 3),
        **serving({"ok": 1}, 10, 3, target="r:2"),
        **vllm({"stop": 9}, 9, 9),
    }
    assert findings(compare([streamed(), streamed()], counters)) == {}


def test_pages_and_other_endpoints_are_no_requests_of_the_run() -> None:
    page = series(
        "serving_requests_total", model="none", kind="none", endpoint="/metrics", outcome="ok"
    )
    assert findings(compare([streamed()], {**serving({"ok": 1}, 10, 3), page: 40})) == {}


def test_tokens_of_callers_that_left() -> None:
    """3 came, 64 were asked for; the engine had made 5 when it noticed."""
    counts = compare([left(), streamed(1)], serving({"ok": 1, "cancelled": 1}, 20, 8))
    assert findings(counts) == {}
    tokens = counts["completion tokens"]
    assert (tokens.client, tokens.server, tokens.explained) == (6, 8, 2)
    assert "usage of 1 requests never came" in tokens.note


@pytest.mark.parametrize(
    ("server", "unexplained"),
    [(2, 1), (3, 0), (64, 0), (65, 1)],
)
def test_they_are_bounded_on_both_sides(server: int, unexplained: int) -> None:
    counts = compare([left()], serving({"cancelled": 1}, 10, server))
    assert counts["completion tokens"].unexplained == unexplained


def test_without_an_upper_bound_more_is_taken() -> None:
    counts = compare([left(max_tokens=0)], serving({"cancelled": 1}, 10, 5000))
    assert findings(counts) == {}


def test_a_token_too_many_is_a_finding_where_all_usage_came() -> None:
    counts = compare([streamed()], serving({"ok": 1}, 10, 4))
    assert findings(counts) == {"completion tokens": 1}
    counts = compare([streamed()], serving({"ok": 1}, 9, 3))
    assert findings(counts) == {"prompt tokens": 1}


def test_a_caller_that_left_too_late_to_be_seen() -> None:
    counts = compare([left(), left()], serving({"ok": 1, "cancelled": 1}, 20, 10))
    assert findings(counts) == {}
    assert counts["requests ok"].explained == 1
    assert counts["requests cancelled"].explained == 1


def test_an_answer_that_the_service_does_not_count_is_a_finding() -> None:
    counts = compare([streamed(), streamed()], serving({"ok": 1}, 20, 6))
    assert findings(counts) == {"requests": 1, "requests ok": 1}


def test_answers_that_the_client_did_not_see_are_a_finding() -> None:
    """It got a 500 each time; the service counts one of them as ok."""
    counts = compare([failed(), failed()], serving({"ok": 1, "error": 1}))
    assert findings(counts) == {"requests ok": 1, "requests failed": 1}


def test_requests_that_may_not_have_reached_the_service() -> None:
    records = [streamed(), failed(1, 0, "connection refused"), failed(2, 0, "timeout")]
    assert findings(compare(records, serving({"ok": 1}, 10, 3))) == {}
    assert findings(compare(records, serving({"ok": 1, "cancelled": 1}, 10, 3))) == {}
    never = failed(3, 0, "never sent", begun_s=0.0, sent_s=0.0)
    counts = compare([streamed(), never], serving({"ok": 1}, 10, 3))
    assert (findings(counts), counts["requests"].client) == ({}, 1)


def test_others_have_called() -> None:
    counts = compare([streamed()], serving({"ok": 3}, 400, 50))
    assert findings(counts)["requests"] == 2
    assert "2 more requests than were sent" in counts["requests"].note
    assert "others have called" in counts["requests"].note


def test_a_process_that_was_killed_has_lost_counts() -> None:
    lost = {"e:1": "its process was replaced during the run"}
    counts = compare([streamed(), streamed()], vllm({"stop": 1}, 10, 3), lost=lost)
    assert findings(counts) == {}
    assert "lower bound" in counts["requests"].note
    assert "e:1: its process was replaced" in counts["requests"].note
    # It explains no count that is too high, and none of a source that lost nothing.
    counts = compare([streamed()], vllm({"stop": 1}, 10, 4), lost=lost)
    assert findings(counts) == {"completion tokens": 1}
    assert "not sure: e:1" in counts["completion tokens"].note
    assert findings(compare([streamed(), streamed()], serving({"ok": 1}, 20, 6), lost=lost))


def test_a_replica_died_and_nobody_knows_its_tokens() -> None:
    cut = failed(0, 200, "broken stream", event_s=streamed().event_s)
    counters = serving({"error": 1}, serving_requests_without_usage_total=1)
    counts = compare([cut], counters)
    assert findings(counts) == {}
    assert "does not know the tokens of 1" in counts["completion tokens"].note


def test_requests_that_still_run() -> None:
    """They explain what is missing, and are a finding themselves: all clients have gone."""
    counts = compare([left()], serving({}, 0, 0), running=1)
    assert findings(counts) == {"requests still running": 1}
    assert "1 still ran" in counts["requests"].note


def test_by_model_if_the_service_names_the_same() -> None:
    records = [streamed(model="a"), streamed(1, model="b"), failed(2, 401, model="b")]
    refused = series(
        "serving_requests_total", model="none", kind="none", endpoint="none", outcome="rejected"
    )
    counters = {
        **serving({"ok": 1}, 10, 3, model="a"),
        **serving({"ok": 1}, 10, 4, model="b"),
        refused: 1,
    }
    counts = compare(records, counters)
    assert findings(counts) == {"completion tokens": 1, "completion tokens b": 1}
    assert counts["requests b"].explained == 1


def test_a_model_that_was_refused_each_time_hides_no_other() -> None:
    records = [streamed(model="a"), streamed(1, model="b"), failed(2, 404, model="unknown")]
    refused = series(
        "serving_requests_total", model="none", kind="none", endpoint="none", outcome="rejected"
    )
    counters = {
        **serving({"ok": 1}, 10, 3, model="a"),
        **serving({"ok": 1}, 10, 3, model="b"),
        refused: 1,
    }
    counts = compare(records, counters)
    assert findings(counts) == {}
    assert "requests a" in counts
    assert "requests unknown" not in counts


def test_custom_ids_are_compared_in_total() -> None:
    records = [streamed(model="base"), streamed(1, model="base.custom")]
    counts = compare(records, serving({"ok": 2}, 20, 6, model="base"))
    assert findings(counts) == {}
    assert "base.custom under other names" in counts["requests"].note
    assert not any(count.model for count in counts.values())


def test_bare_vllm() -> None:
    records = [streamed(), left(1), failed(2, 400), streamed(3)]
    counts = compare(records, vllm({"stop": 1, "length": 1, "abort": 0}, 30, 10))
    assert counts["requests"].source == "metrics of vLLM"
    assert findings(counts) == {}


def test_vllm_that_counts_less_than_was_answered() -> None:
    counts = compare([streamed(), streamed()], vllm({"stop": 1}, 20, 6))
    assert findings(counts) == {"requests": 1, "requests ok": 1}


def test_without_metrics_there_are_no_counts() -> None:
    assert compare([streamed()], {series("other_total"): 4}) == {}


def test_a_ledger_is_one_more_source() -> None:
    aggregate = Aggregate({}, {})
    aggregate.add(streamed())
    ledger = ServerCounts(
        "the ledger",
        models=Tally(Counter({"m": 1}), Counter({"m": 10}), Counter({"m": 2})),
        outcomes=Counter({Outcome.OK: 1}),
    )
    after = Snapshot(9.0, serving({"ok": 1}, 10, 3))
    counts = reconcile(ZERO, after, aggregate, [ledger])
    assert [c.source for c in counts if c.unexplained] == ["the ledger"]
    assert len(counts) == 12
