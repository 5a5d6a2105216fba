"""An engine server's metrics with their names, units and labels."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_TOKEN_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1, 2)


class AdapterMetrics:
    """Loads of LoRA adapters into this engine."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self._loads = Counter(
            "serving_adapter_loads_total",
            "LoRA adapters brought into the engine, by result (ok, error).",
            ["result"],
            registry=registry,
        )
        self._seconds = Histogram(
            "serving_adapter_load_seconds",
            "Time to check and load one LoRA adapter.",
            buckets=(0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
            registry=registry,
        )
        self._held = Gauge(
            "serving_adapters_held", "LoRA adapters in the engine's memory.", registry=registry
        )

    @contextmanager
    def loading(self) -> Iterator[None]:
        """Times one load and counts its result."""
        started = time.monotonic()
        try:
            yield
        except BaseException:
            self._loads.labels("error").inc()
            raise
        self._loads.labels("ok").inc()
        self._held.inc()
        self._seconds.observe(time.monotonic() - started)

    def unloaded(self) -> None:
        self._held.dec()


class CallMetrics:
    """Calls that routers ran on this replica."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self._calls = Counter(
            "serving_engine_calls_total",
            "Calls by outcome (ok, error, cancelled, rejected).",
            ["outcome"],
            registry=registry,
        )

    def count(self, outcome: str) -> None:
        self._calls.labels(outcome).inc()


class QueueMetrics:
    """Requests that wait in this engine server until it is their turn to go to the engine."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self._waiting = Gauge(
            "serving_queue_requests",
            "Requests that wait for their turn, by priority (interactive, batch).",
            ["priority"],
            registry=registry,
        )
        self._bytes = Gauge(
            "serving_queue_bytes",
            "Bodies, prompts and images of the requests that wait.",
            registry=registry,
        )
        self._waited = Histogram(
            "serving_queue_wait_seconds",
            "How long requests waited that had to, however their wait ended.",
            ["priority"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.refused = Counter(
            "serving_queue_refused_total",
            "Requests that got no turn, by reason: full, bytes, late (they waited too long), "
            "displaced (by one of an account that has fewer waiting).",
            ["reason"],
            registry=registry,
        )

    def watch(self, waiting: Callable[[bool], int], size: Callable[[], int]) -> None:
        """Set the functions that return the gauges' values when they are scraped: how many requests
        wait, those marked as batch or the others, and their bytes."""
        for batch, name in ((False, "interactive"), (True, "batch")):
            self._waiting.labels(name).set_function(partial(waiting, batch))
        self._bytes.set_function(size)

    def waited(self, seconds: float, *, batch: bool) -> None:
        self._waited.labels("batch" if batch else "interactive").observe(seconds)


class BatchMetrics:
    """The batches of the transformers engine (`engine/hf/batch.py`). vLLM has its own `vllm:*`."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self._running = Gauge(
            "serving_engine_requests_running",
            "Requests that have a row in the running batch.",
            registry=registry,
        )
        self._waiting = Gauge(
            "serving_engine_requests_waiting", "Requests that wait for a row.", registry=registry
        )
        self._rows = Histogram(
            "serving_engine_step_rows",
            "Rows of one step of the model, by phase (prefill, decode).",
            ["phase"],
            buckets=(1, 2, 4, 8, 16, 32, 64, 128),
            registry=registry,
        )
        self._seconds = Histogram(
            "serving_engine_step_seconds",
            "Time of one step of the model with sampling, by phase (prefill, decode).",
            ["phase"],
            buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
            registry=registry,
        )
        self._tokens = Counter(
            "serving_engine_tokens_total",
            "Tokens the model has worked through, by kind (prompt, completion).",
            ["kind"],
            registry=registry,
        )
        # Looked up once and not at every step: looking a label up costs as much as counting.
        self._prompt = self._tokens.labels("prompt")
        self._completion = self._tokens.labels("completion")

    def watch(self, running: Callable[[], int], waiting: Callable[[], int]) -> None:
        """Set the functions that return the gauges' values when they are scraped."""
        self._running.set_function(running)
        self._waiting.set_function(waiting)

    @contextmanager
    def step(self, phase: str, rows: int) -> Iterator[None]:
        """Times one step."""
        started = time.monotonic()
        yield
        self._rows.labels(phase).observe(rows)
        self._seconds.labels(phase).observe(time.monotonic() - started)

    def prompt_tokens(self, count: int) -> None:
        self._prompt.inc(count)

    def generated_tokens(self, count: int) -> None:
        self._completion.inc(count)
