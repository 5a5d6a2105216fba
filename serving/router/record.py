"""One record per request: its single outcome, its times, its tokens; counted and logged once.

Outcomes: `ok`; `rejected`, refused before an engine worked on it (bad input, unknown model, no
capacity); `cancelled`, the client left; `error`, everything else.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager

from serving.errors import (
    ClientLeft,
    Ended,
    EngineFailed,
    ModelUnavailable,
    Quarantined,
    ServingError,
    is_refusal,
)
from serving.observability.logs import Log, Sparing
from serving.observability.router_metrics import NO_MODEL, RouterMetrics
from serving.router.admission import Ticket
from serving.router.answer import Answer
from serving.store.entry import Entry
from serving.wire.messages import End

# The `endpoint` of a request whose path was not read.
NO_ENDPOINT = "none"


class Record:
    """What is known of one request so far. Times are `time.monotonic` seconds.

    `key` is the ID of the key that it came with, which is no secret. `ticket` is None until the
    request is admitted. `answer` is the last replica's, None if the request was sent to none;
    `used` is what that replica says was used, None if it has not said. `held_s` is how long it has
    waited for a replica to come, in seconds.
    """

    __slots__ = (
        "account",
        "answer",
        "arrived",
        "code",
        "ended",
        "endpoint",
        "engine",
        "first_byte",
        "held_s",
        "key",
        "kind",
        "last_byte",
        "model",
        "outcome",
        "quiet",
        "replica",
        "request_id",
        "retried",
        "served_model",
        "status",
        "stream",
        "ticket",
        "used",
        "version",
    )

    def __init__(self, request_id: str, endpoint: str) -> None:
        self.request_id = request_id
        self.endpoint = endpoint
        self.arrived = time.monotonic()
        self.model = ""
        self.served_model = ""
        self.version = ""
        self.engine = NO_MODEL
        self.kind = NO_MODEL
        self.account = ""
        self.key = ""
        self.replica = ""
        self.stream = False
        self.retried = False
        self.held_s = 0.0
        self.quiet = False
        self.status = 0
        self.code: str | None = None
        self.outcome: str | None = None
        self.ended: float | None = None
        self.first_byte: float | None = None
        self.last_byte: float | None = None
        self.ticket: Ticket | None = None
        self.answer: Answer | None = None
        self.used: End | None = None

    def received(self) -> None:
        """The body is complete. Times count from here: what came before was up to the client."""
        self.arrived = time.monotonic()

    def on_bytes(self) -> None:
        """Bytes of the completion are about to leave."""
        now = time.monotonic()
        if self.first_byte is None:
            self.first_byte = now
        self.last_byte = now

    def complete(self, status: int, used: End) -> None:
        """The answer has come to its end, with this status; its last bytes are about to leave."""
        self.status, self.used = status, used
        if self.stream:
            # All of it may have come at once.
            self.on_bytes()
        self.end()

    @property
    def usage_known(self) -> bool:
        """True if what the request used has been counted, and is neither a guess nor missing."""
        return self.answer is None if self.used is None else not self.used.guessed

    def entry(self) -> Entry:
        """What the ledger keeps of a request that has ended."""
        used = self.used or End()
        ended = self.ended or time.monotonic()
        return Entry(
            request_id=self.request_id,
            ended_at=time.time(),
            account=self.account,
            key_id=self.key,
            model=self.model,
            served_model=self.served_model,
            engine=self.engine,
            kind=self.kind,
            endpoint=self.endpoint,
            stream=self.stream,
            outcome=self.outcome or "error",
            status=self.status,
            code=self.code,
            finish_reason=used.finish_reason,
            usage_known=self.usage_known,
            prompt_tokens=used.prompt_tokens,
            cached_tokens=used.cached_tokens,
            completion_tokens=used.completion_tokens,
            images=used.images,
            queue_s=used.queue_s,
            ttft_s=None if self.first_byte is None else self.first_byte - self.arrived,
            total_s=ended - self.arrived,
            replica=self.replica,
            retried=self.retried,
            version=self.version,
        )

    def end(self, error: BaseException | None = None) -> None:
        """Set the outcome: that of `error`, or else of the response that was sent. Only the first
        call counts."""
        if self.outcome is not None:
            return
        self.ended = time.monotonic()
        if isinstance(error, Ended):
            error = error.error
        if error is None:
            refused = is_refusal(self.status)
            self.outcome = "ok" if self.status < 400 else "rejected" if refused else "error"
        elif isinstance(error, ClientLeft | asyncio.CancelledError | GeneratorExit):
            self.outcome = "cancelled"
            self.status, self.code = ClientLeft.status, ClientLeft.code
        elif isinstance(error, ServingError):
            self.outcome = _outcome(error)
            self.status, self.code = error.status, error.code
        else:
            self.outcome = "error"
            self.status, self.code = ServingError.status, ServingError.code


class Recorder:
    """Turns each record into metrics and one log line."""

    def __init__(self, metrics: RouterMetrics, log: Log) -> None:
        self._metrics = metrics
        self._log = log
        self._sparing = Sparing(log)

    def refused(self, error: ServingError) -> None:
        """Count a request that the listener refused before it became one, so that it has no record.
        Strangers can cause these as often as they like, so not each has a line in the log."""
        self._metrics.requests.labels(NO_MODEL, NO_MODEL, NO_ENDPOINT, "rejected").inc()
        self._metrics.refused.labels(error.code).inc()
        self._sparing.warning("http_refused", status=error.status, code=error.code)

    @contextmanager
    def in_flight(self, record: Record) -> Iterator[None]:
        """While the block runs, the request counts as in flight at its engine model."""
        gauge = self._metrics.in_flight.labels(record.engine)
        gauge.inc()
        try:
            yield
        finally:
            gauge.dec()

    def write(self, record: Record) -> None:
        """Count and log a request that has ended, once."""
        metrics, model, outcome = self._metrics, record.engine, record.outcome or "error"
        used = record.used or End()
        seconds = (record.ended or time.monotonic()) - record.arrived
        metrics.requests.labels(model, record.kind, record.endpoint, outcome).inc()
        if model != NO_MODEL:
            metrics.duration.labels(model).observe(seconds)
            metrics.prompt_tokens.labels(model).inc(used.prompt_tokens)
            metrics.completion_tokens.labels(model).inc(used.completion_tokens)
            if used.queue_s is not None:
                metrics.queue.labels(model).observe(used.queue_s)
            if record.answer is not None and record.used is None:
                metrics.unknown_usage.labels(model).inc()
        ttft = None
        if record.stream and record.first_byte is not None and record.last_byte is not None:
            ttft = record.first_byte - record.arrived
            metrics.ttft.labels(model).observe(ttft)
            if used.completion_tokens > 1:
                span = record.last_byte - record.first_byte
                metrics.inter_token.labels(model).observe(span / (used.completion_tokens - 1))
        if record.quiet and outcome == "ok":
            return
        write = self._log.error if outcome == "error" else self._log.info
        write(
            "request",
            request_id=record.request_id,
            endpoint=record.endpoint,
            model=record.model,
            engine=model,
            replica=record.replica,
            account=record.account,
            key=record.key,
            stream=record.stream,
            outcome=outcome,
            status=record.status,
            code=record.code,
            seconds=round(seconds, 4),
            ttft_s=None if ttft is None else round(ttft, 4),
            queue_s=None if used.queue_s is None else round(used.queue_s, 4),
            prompt_tokens=used.prompt_tokens,
            completion_tokens=used.completion_tokens,
            usage_known=record.usage_known,
            finish_reason=used.finish_reason,
            retried=record.retried,
        )


def _outcome(error: ServingError) -> str:
    if isinstance(error, EngineFailed):
        return "error"
    if is_refusal(error.status) or isinstance(error, ModelUnavailable | Quarantined):
        return "rejected"
    return "error"
