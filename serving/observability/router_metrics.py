"""The router's metrics with their names, units and labels.

Labels are bounded. An adapter counts under the `model` of its base and is told apart by `kind`;
its own ID is in the log. `model` is `none` where no model was resolved.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

from prometheus_client import (
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
            "serving_requests_in_flight",
            "Requests being worked on, those that wait for an engine or a provider among them.",
            model,
            registry=registry,
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
        self.upstream_waiting = Gauge(
            "serving_upstream_requests_waiting",
            "Requests that wait for one of the provider's turns.",
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
            "Answers whose provider did not say how many tokens they took; they are guessed.",
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
