"""Metrics of an engine replica, beside vLLM's own `vllm:*` in the same `/metrics`.

The names, units and labels of the router are in `observability/metrics.py`. There is one model
in a replica, so nothing here has a model label; Prometheus adds it from the scrape target.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
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
