"""Every metric of the router: name, unit, labels.

Labels are bounded: `model` is the ID of an engine model (an adapter counts under its base, and
`kind` tells them apart; the exact ID is in the log), `none` where no model was resolved.
"""

from __future__ import annotations

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
    """The router's own registry, so that two routers in one process (tests) do not meet."""

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
        self.in_flight = Gauge(
            "serving_requests_in_flight", "Requests being worked on.", model, registry=registry
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
        self.retries = Counter(
            "serving_retries_total",
            "Requests sent to a second replica because the first failed before a byte.",
            model,
            registry=registry,
        )
        self.without_account = Counter(
            "serving_requests_without_account_total",
            "Completions that named no account while the policy is to warn.",
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
