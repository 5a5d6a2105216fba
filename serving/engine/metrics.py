"""Metrics of an engine replica, beside vLLM's own `vllm:*` in the same `/metrics`.

The names, units and labels of the router are in `observability/metrics.py`. There is one model
in a replica, so nothing here has a model label; Prometheus adds it from the scrape target.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

from serving.engine.protocol import Call, End


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

    def on_call_end(self, call: Call, outcome: str, end: End, seconds: float) -> None:
        self._calls.labels(outcome).inc()


class BatchMetrics:
    """The batches of the transformers engine (`hf_batch.py`). vLLM has its own `vllm:*`."""

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
        # Once, and not at every step: looking a label up costs as much as counting.
        self._prompt = self._tokens.labels("prompt")
        self._completion = self._tokens.labels("completion")

    def watch(self, running: Callable[[], int], waiting: Callable[[], int]) -> None:
        """Where the gauges' values are read when they are scraped."""
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
