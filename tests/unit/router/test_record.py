"""Every way in which a request can end gives exactly one outcome."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest

from serving.errors import (
    ClientLeft,
    DeadlineExceeded,
    Ended,
    EngineFailed,
    InvalidField,
    ModelUnavailable,
    Overloaded,
    ServingError,
    Unauthenticated,
    UnsupportedCoding,
    UnsupportedVersion,
)
from serving.observability.logs import open_log
from serving.observability.router_metrics import RouterMetrics
from serving.router.answer import Answer
from serving.router.record import Record, Recorder
from serving.store.entry import Entry
from serving.wire.messages import End


@pytest.fixture
def metrics() -> RouterMetrics:
    return RouterMetrics()


@pytest.fixture
def recorder(metrics: RouterMetrics, tmp_path: Path) -> Recorder:
    return Recorder(metrics, open_log("record-test", str(tmp_path)))


def outcomes(metrics: RouterMetrics) -> dict[str, float]:
    return {
        sample.labels["outcome"]: sample.value
        for sample in metrics.requests.collect()[0].samples
        if sample.name == "serving_requests_total"
    }


def lines(folder: Path) -> list[dict[str, Any]]:
    (file,) = folder.glob("record-test-*.jsonl")
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.mark.parametrize(
    ("raised", "outcome", "status", "code"),
    [
        (ClientLeft("x"), "cancelled", 499, "client_left"),
        (asyncio.CancelledError(), "cancelled", 499, "client_left"),
        (GeneratorExit(), "cancelled", 499, "client_left"),
        (InvalidField("x"), "rejected", 422, "invalid_field"),
        (Unauthenticated("x"), "rejected", 401, "unauthenticated"),
        (ModelUnavailable("x"), "rejected", 503, "model_unavailable"),
        (Overloaded("x"), "rejected", 503, "overloaded"),
        (EngineFailed("x"), "error", 503, "engine_failed"),
        (DeadlineExceeded("x"), "error", 504, "deadline_exceeded"),
        (Ended(EngineFailed("x")), "error", 503, "engine_failed"),
        (Ended(DeadlineExceeded("x")), "error", 504, "deadline_exceeded"),
        (UnsupportedCoding("x"), "rejected", 501, "unsupported_coding"),
        (UnsupportedVersion("x"), "rejected", 505, "unsupported_version"),
        (ServingError("x"), "error", 500, "internal_error"),
        (ValueError("x"), "error", 500, "internal_error"),
        (KeyboardInterrupt(), "error", 500, "internal_error"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_a_request_that_failed(
    recorder: Recorder,
    metrics: RouterMetrics,
    tmp_path: Path,
    raised: BaseException,
    outcome: str,
    status: int,
    code: str,
) -> None:
    record = Record("r1", "/v4/completions")
    record.end(raised)
    record.end()  # the response that says so was sent
    recorder.write(record)
    assert outcomes(metrics) == {outcome: 1}
    (line,) = lines(tmp_path)
    assert (line["outcome"], line["status"], line["code"]) == (outcome, status, code)


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (200, "ok"),
        (399, "ok"),
        (400, "rejected"),
        (404, "rejected"),
        (500, "error"),
        (501, "rejected"),
        (503, "error"),
        (505, "rejected"),
    ],
)
def test_a_request_that_was_answered(
    recorder: Recorder, metrics: RouterMetrics, tmp_path: Path, status: int, outcome: str
) -> None:
    record = Record("r1", "/v1/completions")
    record.status = status
    record.end()
    recorder.write(record)
    assert outcomes(metrics) == {outcome: 1}
    assert [line["outcome"] for line in lines(tmp_path)] == [outcome]


def test_tokens_and_times(recorder: Recorder, metrics: RouterMetrics, tmp_path: Path) -> None:
    record = Record("r1", "/v4/completions")
    record.engine, record.kind, record.stream, record.status = "m", "engine", True, 200
    record.received()
    record.on_bytes()
    record.on_bytes()
    record.used = End("stop", prompt_tokens=3, completion_tokens=5, queue_s=0.5)
    record.end()
    recorder.write(record)
    value = metrics.registry.get_sample_value
    assert value("serving_prompt_tokens_total", {"model": "m"}) == 3
    assert value("serving_completion_tokens_total", {"model": "m"}) == 5
    assert value("serving_queue_seconds_sum", {"model": "m"}) == 0.5
    for name in ("time_to_first_token", "inter_token", "request", "queue"):
        assert value(f"serving_{name}_seconds_count", {"model": "m"}) == 1, name
    (line,) = lines(tmp_path)
    assert line["request_id"] == "r1"
    assert (line["prompt_tokens"], line["completion_tokens"]) == (3, 5)
    assert line["ttft_s"] <= line["seconds"]


def test_the_ledger_has_all_that_is_known_of_a_request() -> None:
    record = Record("r1", "/v4/completions")
    record.model, record.served_model, record.version = "latest", "m.pirate", "v7"
    record.engine, record.kind, record.replica = "m", "adapter", "m#2"
    record.account, record.key = "acme", "svk_x"
    record.stream = record.retried = True
    record.complete(200, End("stop", 3, 5, queue_s=0.5, cached_tokens=2, images=1))
    record.arrived, record.first_byte, record.last_byte = 100.0, 101.5, 103.0
    record.ended = 104.0
    before = time.time()
    entry = record.entry()
    assert before <= entry.ended_at <= time.time()
    assert entry == Entry(
        request_id="r1",
        ended_at=entry.ended_at,
        account="acme",
        key_id="svk_x",
        model="latest",
        served_model="m.pirate",
        engine="m",
        kind="adapter",
        endpoint="/v4/completions",
        stream=True,
        outcome="ok",
        status=200,
        code=None,
        finish_reason="stop",
        usage_known=True,
        prompt_tokens=3,
        cached_tokens=2,
        completion_tokens=5,
        images=1,
        queue_s=0.5,
        ttft_s=1.5,
        total_s=4.0,
        replica="m#2",
        retried=True,
        version="v7",
    )


def test_what_is_not_known_of_a_request_is_not_made_up() -> None:
    record = Record("r1", "/v4/completions")
    record.answer = Answer(Nobody(), 1)
    record.end(EngineFailed("x"))
    entry = record.entry()
    assert (entry.outcome, entry.status, entry.code) == ("error", 503, "engine_failed")
    assert (entry.prompt_tokens, entry.cached_tokens, entry.completion_tokens) == (0, 0, 0)
    assert (entry.queue_s, entry.ttft_s, entry.finish_reason) == (None, None, None)
    assert (entry.usage_known, entry.retried, entry.images) == (False, False, 0)


@pytest.mark.parametrize("stream", [True, False])
def test_a_stream_that_comes_at_once_has_a_first_byte(stream: bool) -> None:
    """Its entry is written before any of it leaves."""
    record = Record("r1", "/v4/completions")
    record.stream = stream
    record.received()
    record.complete(200, End("stop", 3, 5))
    entry = record.entry()
    if stream:
        assert entry.ttft_s is not None
        assert 0 <= entry.ttft_s <= entry.total_s
    else:
        assert entry.ttft_s is None


def test_an_unresolved_request_makes_no_model_series(
    recorder: Recorder, metrics: RouterMetrics
) -> None:
    record = Record("r1", "/v4/completions")
    record.model = "whatever a caller sends"
    record.end(InvalidField("x"))
    recorder.write(record)
    text = metrics.text().decode()
    assert 'serving_requests_total{endpoint="/v4/completions",kind="none",model="none"' in text
    assert "whatever" not in text
    assert "serving_request_seconds_count{" not in text


@pytest.mark.parametrize("raised", [None, EngineFailed("x"), asyncio.CancelledError()])
def test_in_flight_comes_back_to_zero(
    recorder: Recorder, metrics: RouterMetrics, raised: BaseException | None
) -> None:
    def value() -> float | None:
        return metrics.registry.get_sample_value("serving_requests_in_flight", {"model": "m"})

    def work() -> None:
        record = Record("r1", "/v4/completions")
        record.engine, record.status = "m", 200
        with recorder.in_flight(record):
            assert value() == 1
            if raised is not None:
                raise raised

    if raised is None:
        work()
    else:
        with pytest.raises(type(raised)):
            work()
    assert value() == 0


def test_a_probe_is_counted_and_logged_only_when_it_fails(
    recorder: Recorder, metrics: RouterMetrics, tmp_path: Path
) -> None:
    for status in (200, 503):
        record = Record("r1", "/ready")
        record.quiet, record.status = True, status
        record.end()
        recorder.write(record)
    assert outcomes(metrics) == {"ok": 1, "error": 1}
    assert [line["status"] for line in lines(tmp_path)] == [503]


@pytest.mark.parametrize(("used", "unknown"), [(None, 1.0), (End(), 0.0)])
def test_usage_that_a_replica_did_not_tell_is_no_zero(
    recorder: Recorder, metrics: RouterMetrics, tmp_path: Path, used: End | None, unknown: float
) -> None:
    record = Record("r1", "/v4/completions")
    record.engine, record.answer, record.used = "m", Answer(Nobody(), 1), used
    record.end(EngineFailed("x"))
    recorder.write(record)
    name = "serving_requests_without_usage_total"
    assert (metrics.registry.get_sample_value(name, {"model": "m"}) or 0.0) == unknown
    assert [line["usage_known"] for line in lines(tmp_path)] == [used is not None]


class Nobody:
    """Sends nothing."""

    def cancel(self, stream: int) -> None:
        pass
