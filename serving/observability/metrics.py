"""All metrics with their names, units and labels: the router's, then the engine servers'.

Labels are bounded. An adapter counts under the `model` of its base and is told apart by `kind`;
its own ID is in the log. `model` is `none` where no model was resolved.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial

from prometheus_client import (
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

NO_MODEL = "none"

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_TOKEN_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1, 2)


class RouterMetrics:
    """One router's metrics, in a registry of their own: tests run two routers in one process."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)  # memory and CPU of this router
        model = ["model"]
        self.requests = Counter(
            "serving_requests_total",
            "Requests ended, by outcome: ok, error, cancelled (the client left), rejected.",
            ["model", "kind", "endpoint", "outcome"],
            registry=registry,
        )
        self.refused = Counter(
            "serving_http_refused_total",
            "Requests that the HTTP listener refused before they reached the service, by the code "
            "of the error: no HTTP, late headers, too many connections. "
            "serving_requests_total has each of them as rejected.",
            ["code"],
            registry=registry,
        )
        self.in_flight = Gauge(
            "serving_requests_in_flight", "Requests being worked on.", model, registry=registry
        )
        self.spooled = Gauge(
            "serving_spooled_bytes",
            "Recordings that this router has on disk until they are answered.",
            registry=registry,
        )
        self.ttft = Histogram(
            "serving_time_to_first_token_seconds",
            "From the request's last byte to the first byte of its text; streams only.",
            model,
            buckets=_SECONDS,
            registry=registry,
        )
        self.inter_token = Histogram(
            "serving_inter_token_seconds",
            "Mean time between the tokens of one stream.",
            model,
            buckets=_TOKEN_SECONDS,
            registry=registry,
        )
        self.queue = Histogram(
            "serving_queue_seconds",
            "Time in the engine before the request was first scheduled.",
            model,
            buckets=_SECONDS,
            registry=registry,
        )
        self.duration = Histogram(
            "serving_request_seconds",
            "From the request's last byte to the end of its answer.",
            model,
            buckets=_SECONDS,
            registry=registry,
        )
        self.prompt_tokens = Counter(
            "serving_prompt_tokens_total", "Tokens of prompts.", model, registry=registry
        )
        self.completion_tokens = Counter(
            "serving_completion_tokens_total", "Tokens generated.", model, registry=registry
        )
        self.unknown_usage = Counter(
            "serving_requests_without_usage_total",
            "Requests whose replica did not say what they used: it died, or was silent.",
            model,
            registry=registry,
        )
        self.retries = Counter(
            "serving_retries_total",
            "Requests sent to a second replica because the first failed before a byte was sent.",
            model,
            registry=registry,
        )
        self.retries_refused = Counter(
            "serving_retries_refused_total",
            "Requests that failed and were not sent again because the router's budget of retries "
            "was used up.",
            model,
            registry=registry,
        )
        self.suspects = Counter(
            "serving_suspects_total",
            "Requests that this router was told an engine died of.",
            model,
            registry=registry,
        )
        self.quarantined = Counter(
            "serving_quarantined_total",
            "Requests refused because an engine died of the same request before.",
            model,
            registry=registry,
        )
        self.without_account = Counter(
            "serving_requests_without_account_total",
            "Completions that named no account, or one that is not known, while the policy is to "
            "warn.",
            registry=registry,
        )
        self.store_up = Gauge(
            "serving_store_up",
            "1 while the store answers this router, 0 while it is away or if there is none.",
            registry=registry,
        )
        self.replicas = Gauge(
            "serving_replicas",
            "Replicas this router has a link to, by state.",
            ["model", "state"],
            registry=registry,
        )
        self.upstream_attempts = Counter(
            "serving_upstream_attempts_total",
            "HTTP requests to providers, by result: ok, cancelled, client_error, rate_limited, "
            "misconfigured, server_error, timeout, connection, no_answer.",
            ["provider", "result"],
            registry=registry,
        )
        self.upstream_retries = Counter(
            "serving_upstream_retries_total",
            "Attempts that were followed by another.",
            ["provider"],
            registry=registry,
        )
        self.upstream_in_flight = Gauge(
            "serving_upstream_requests_in_flight",
            "Requests that hold one of the provider's turns.",
            ["provider"],
            registry=registry,
        )
        self.upstream_circuit = Gauge(
            "serving_upstream_circuit",
            "1 for the state the provider's circuit is in: closed, open, half_open.",
            ["provider", "state"],
            registry=registry,
        )
        self.upstream_without_usage = Counter(
            "serving_upstream_without_usage_total",
            "Completions whose provider did not say how many tokens they took; counted as none.",
            ["provider"],
            registry=registry,
        )

    def text(self) -> bytes:
        """Everything in Prometheus' text form."""
        return generate_latest(self.registry)


class LedgerMetrics:
    """The ledger of one router; `registry` is that of its `RouterMetrics`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._adding = Histogram(
            "serving_ledger_add_seconds",
            "How long an answer's last byte waited for its entry in the ledger to be durable.",
            buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5),
            registry=registry,
        )
        self.lost = Counter(
            "serving_ledger_entries_lost_total",
            "Entries that neither disk nor store took while there was room for them in memory.",
            registry=registry,
        )

    def watch(
        self,
        *,
        unwritten: Callable[[], float],
        unshipped: Callable[[], float],
        store_away_s: Callable[[], float],
    ) -> None:
        """Show what these functions return whenever the metrics are read."""
        shown = (
            ("entries_unwritten", "Entries that are in memory alone.", unwritten),
            ("unshipped_bytes", "Journals on this disk that the store has yet to get.", unshipped),
            ("store_away_seconds", "For how long the store has taken no entries.", store_away_s),
        )
        for name, words, function in shown:
            Gauge(f"serving_ledger_{name}", words, registry=self._registry).set_function(function)

    def adding(self) -> AbstractContextManager[None]:
        """Times one entry."""
        return self._adding.time()


class QuotaMetrics:
    """The limits of one router; `registry` is that of its `RouterMetrics`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.refused = Counter(
            "serving_quota_refused_total",
            "Requests refused by a limit, by whose it is (account, key, model) and its name.",
            ["of", "limit"],
            registry=registry,
        )
        self.leases_up = Gauge(
            "serving_quota_leases_up",
            "1 while the store renews this router's leases of limits, 0 while it is away.",
            registry=registry,
        )


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
