"""A scenario: which requests are sent, when, to whom, and what counts as good.

Times are in seconds and lengths in tokens, unless the name says otherwise. A scenario is computed
into its requests before the run (`loadtests.load`), from its seed alone, so that two runs of one
scenario send the same requests at the same times.
"""

from __future__ import annotations

from pydantic import Field, PositiveFloat, PositiveInt

from loadtests.scenarios.arrivals import Phase
from loadtests.scenarios.fields import Part, Strict
from loadtests.scenarios.traffic import Traffic


class Target(Strict):
    """The service. `--url` and `--key` replace what is here."""

    url: str = "http://127.0.0.1:8000"
    key_env: str = Field(default="LOADTEST_API_KEY", description="variable with the API key")
    metrics: tuple[str, ...] = Field(
        default=(), description="Prometheus pages to read beside the run"
    )
    metrics_targets: str | None = Field(
        default=None, description="a page in Prometheus' http_sd format that lists them"
    )
    usage: str | None = Field(
        default=None, description="the service's ledger (/v4/usage), to compare with"
    )
    usage_key_env: str | None = Field(
        default=None, description="variable with a key that may read it [default: key_env]"
    )
    timeout_s: PositiveFloat = 600


class Fault(Strict):
    """A command that is run at a time: it kills or drains a replica, say."""

    at_s: float = Field(ge=0)
    name: str
    command: str = Field(description="for /bin/sh; LOADTEST_URL is in its environment")
    timeout_s: PositiveFloat = 60


class Goal(Strict):
    """A bar for the whole run or a part of it; the exit status is 1 if one is missed."""

    measure: str = Field(
        description="ttft_p99_ms, tpot_p50_ms, gap_p99_ms, e2e_p90_ms, error_share, "
        "rejected_share, goodput_share, wrong_answers, tokens_per_s, requests_per_s, "
        "goodput_per_s, unreconciled, memory_growth_mb"
    )
    at_most: Part | None = None
    at_least: Part | None = None
    optional: bool = Field(
        default=False, description="not missed where it was not measured, as without metrics"
    )
    model: str | None = None
    account: str | None = None
    traffic: str | None = None
    phase: str | None = None


class Client(Strict):
    """The load generator itself: beyond these the run is invalid, as it measured the client."""

    processes: PositiveInt = 1
    max_lag_p99_ms: PositiveFloat = Field(default=20, description="from due to sent")
    max_rate_error: Part = Field(
        default=0.01,
        gt=0,
        description="of the requests sent against those that were due",
    )


class Scenario(Strict):
    """A whole run."""

    name: str
    about: str = ""
    seed: int = 1
    target: Target = Target()
    phases: tuple[Phase, ...] = Field(min_length=1)
    traffic: tuple[Traffic, ...] = Field(min_length=1)
    faults: tuple[Fault, ...] = ()
    goals: tuple[Goal, ...] = ()
    client: Client = Client()
