"""`records.jsonl`: a line for each request, in the form of aiperf's per-record export.

The form is that of `profile_export.jsonl` of aiperf 0.13 (`MetricRecordInfo` in its
`common/models/record_models.py`), so what reads those files reads these. Under aiperf's names stand
what it means by them: times from when the client took the request up. The same from when the
request was due have names of their own, and fields that aiperf does not know are beside its own.

It is written in the process that sends, a buffer at a time: a line costs some microseconds.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from loadtests.measure.record import Outcome, Record

_BUFFER = 64 * 1024  # bytes that are written at once
_WAIT_S = 1.0  # so long a line waits for others, if another one comes


class RecordWriter:
    """Writes one process's records. Only whole lines are written, whatever ends the process."""

    def __init__(
        self,
        path: Path,
        started_at: Callable[[], float],
        worker: str = "0",
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`started_at`: the Unix time of the run's start, asked once, at the first record.

        Raises OSError if the file cannot be made.
        """
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        self._started_at, self._worker, self._clock = started_at, worker, clock
        self._start_ns: int | None = None
        self._encoder = msgspec.json.Encoder()
        self._buffer = bytearray()
        self._written = clock()
        # Why records are missing: a full disk ends no run.
        self.problem: str | None = None

    def write(self, record: Record) -> None:
        """Add a line."""
        if self._start_ns is None:
            self._start_ns = round(self._started_at() * 1e9)
        buffer = self._buffer
        buffer += self._encoder.encode(line(record, self._start_ns, self._worker))
        buffer += b"\n"
        now = self._clock()
        if len(buffer) >= _BUFFER or now - self._written >= _WAIT_S:
            self._written = now
            self.flush()

    def flush(self) -> None:
        """Write what is in the buffer."""
        buffer, self._buffer = self._buffer, bytearray()
        if self.problem is not None:
            return
        try:
            while buffer:
                del buffer[: os.write(self._file, buffer)]
        except OSError as error:
            self.problem = f"records are missing: {error.strerror or error}"

    def close(self) -> None:
        """Write the rest and close the file; a second call does nothing."""
        if self._file < 0:
            return
        self.flush()
        os.close(self._file)
        self._file = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def join(parts: Iterable[Path], whole: Path) -> None:
    """Make one file of those of several processes, and remove them. Raises OSError."""
    with whole.open("wb") as target:
        for part in parts:
            with part.open("rb") as source:
                shutil.copyfileobj(source, target, 1 << 20)
    for part in parts:
        part.unlink()


def line(record: Record, start_ns: int, worker: str) -> dict[str, Any]:
    """A record in aiperf's form. `start_ns`: when the run started, in nanoseconds of Unix time."""
    begun_s = record.begun_s or record.due_s
    cancelled = record.outcome is Outcome.CANCELLED
    metadata: dict[str, Any] = {
        "session_num": record.session,
        "turn_index": record.turn,
        "conversation_id": str(record.session),
        "credit_issued_ns": start_ns + round(record.due_s * 1e9),
        "request_start_ns": start_ns + round(begun_s * 1e9),
        "request_end_ns": start_ns + round(record.end_s * 1e9),
        "worker_id": worker,
        "record_processor_id": worker,
        "benchmark_phase": "profiling" if record.counted else "warmup",
        "phase_name": record.phase,
        "was_cancelled": cancelled,
        # Not of aiperf.
        "request_index": record.index,
        "traffic": record.traffic,
        "model": record.model,
        "account": record.account,
        "outcome": record.outcome.value,
        "status": record.status,
    }
    if record.request_id:
        metadata["x_request_id"] = record.request_id
    if record.retry_after:
        metadata["retry_after"] = True
    if record.priority is not None:
        metadata["priority"] = record.priority
    if cancelled:
        metadata["cancellation_time_ns"] = metadata["request_end_ns"]
    if record.checked:
        metadata["wrong"] = record.wrong
    found: dict[str, Any] = {"metadata": metadata, "metrics": _metrics(record, begun_s)}
    if record.outcome in (Outcome.ERROR, Outcome.REJECTED):
        kind = record.error or f"HTTP {record.status}"
        found["error"] = {"code": record.status or None, "type": kind, "message": kind}
    return found


def _metrics(record: Record, begun_s: float) -> dict[str, Any]:
    metrics: dict[str, Any] = {}
    if record.begun_s:
        metrics["lag"] = _ms(record.lag_s)
    if record.first_s is not None:
        metrics["time_to_first_token"] = _ms(record.first_s - begun_s)
        metrics["time_to_first_token_from_due"] = _ms(record.first_s - record.due_s)
    if record.outcome is Outcome.OK:
        metrics["request_latency"] = _ms(record.end_s - begun_s)
        metrics["request_latency_from_due"] = _ms(record.e2e_s)
        tpot = record.tpot_s
        if tpot is not None:
            metrics["inter_token_latency"] = _ms(tpot)
    if record.usage_seen:
        metrics["input_sequence_length"] = _tokens(record.prompt_tokens)
        metrics["output_sequence_length"] = _tokens(record.completion_tokens)
        if record.cached_tokens:
            metrics["usage_prompt_cache_read_tokens"] = _tokens(record.cached_tokens)
    return metrics


def _ms(seconds: float) -> dict[str, Any]:
    return {"value": round(seconds * 1e3, 3), "unit": "ms"}


def _tokens(count: int) -> dict[str, Any]:
    return {"value": count, "unit": "tokens"}
