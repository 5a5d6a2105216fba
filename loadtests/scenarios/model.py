"""A scenario: which requests are sent, when, to whom, and what counts as good.

Times are in seconds and lengths in tokens, unless the name says otherwise. A scenario is computed
into its requests before the run (`loadtests.load`), from its seed alone, so that two runs of one
scenario send the same requests at the same times.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PositiveFloat, PositiveInt


class Strict(BaseModel):
    """Refuses fields that it does not know, and numbers that are not finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def from_percent(value: Any) -> Any:
    """Return "20%" as 0.2 and everything else as it is."""
    if isinstance(value, str) and value.endswith("%"):
        try:
            return float(value[:-1]) / 100
        except ValueError:
            return value
    return value


Part = Annotated[float, BeforeValidator(from_percent)]  # of 1; "20%" is 0.2


# --- numbers that are drawn ---


class Fixed(Strict):
    """Always the same number."""

    kind: Literal["fixed"] = "fixed"
    value: float = Field(ge=0)


class Uniform(Strict):
    """Any number from `low` to `high`, each as likely."""

    kind: Literal["uniform"]
    low: float = Field(ge=0)
    high: float = Field(ge=0)


class Lognormal(Strict):
    """Log-normal, as lengths in production mostly are: half lie below `median`.

    What is drawn below `low` or above `high` becomes that bound.
    """

    kind: Literal["lognormal"]
    median: PositiveFloat
    sigma: PositiveFloat = 1.0
    low: float = Field(default=1, ge=0)
    high: PositiveFloat | None = None


class Exponential(Strict):
    """Exponential, as times to think mostly are; what is above `high` becomes `high`."""

    kind: Literal["exponential"]
    mean: PositiveFloat
    high: PositiveFloat | None = None


class Drawn(Strict):
    """Numbers drawn from a file, one in a line, each line as likely."""

    kind: Literal["file"]
    path: str


def from_number(value: Any) -> Any:
    """Return a bare number as the fields of a `Fixed` and everything else as it is."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return {"kind": "fixed", "value": value}
    return value


# A bare number is a `Fixed`.
Distribution = Annotated[
    Fixed | Uniform | Lognormal | Exponential | Drawn,
    Field(discriminator="kind"),
    BeforeValidator(from_number),
]


# --- when requests arrive ---


class Poisson(Strict):
    """Independent callers: gaps are exponential."""

    kind: Literal["poisson"]
    rate: PositiveFloat = Field(description="sessions that begin in a second")


class Constant(Strict):
    """Equal gaps."""

    kind: Literal["constant"]
    rate: PositiveFloat


class Gamma(Strict):
    """Bursts: gaps are gamma distributed with this coefficient of variation (1 is Poisson)."""

    kind: Literal["gamma"]
    rate: PositiveFloat
    cv: PositiveFloat = 3.0


class Ramp(Strict):
    """A Poisson rate that grows evenly from `start` to `end` over the phase."""

    kind: Literal["ramp"]
    start: float = Field(ge=0)
    end: float = Field(ge=0)


class Step(Strict):
    """Poisson rates one after the other, each for an equal part of the phase."""

    kind: Literal["step"]
    rates: tuple[float, ...] = Field(min_length=1)


class Trace(Strict):
    """Arrivals and lengths of a published trace file, as it is.

    `speed` divides its times: 2 sends it twice as fast. Prompt and output lengths are the trace's
    and replace those of the traffic; Mooncake's hash IDs become shared prefixes.
    """

    kind: Literal["trace"]
    format: Literal["mooncake", "burstgpt", "azure"]
    path: str
    speed: PositiveFloat = 1.0
    limit: PositiveInt | None = Field(default=None, description="use only so many of its requests")


class Closed(Strict):
    """A closed loop: so many sessions at a time, the next begins when one ends.

    Its latencies are from the moment of sending: a slow server is then asked less often and looks
    better than it is. Reports label it as such.
    """

    kind: Literal["closed"]
    concurrency: PositiveInt


Arrivals = Annotated[
    Poisson | Constant | Gamma | Ramp | Step | Trace | Closed, Field(discriminator="kind")
]


class Phase(Strict):
    """A part of the run with one kind of arrivals. Phases follow each other without a pause."""

    name: str
    seconds: PositiveFloat
    arrivals: Arrivals
    counted: bool = Field(default=True, description="false: warm-up, left out of the totals")
    traffic: tuple[str, ...] | None = Field(
        default=None, description="names of the traffic that is sent in it [default: all]"
    )


# --- what is sent ---


class Zipf(Strict):
    """Custom IDs, of which few are popular: the n-th is drawn in proportion to n ** -exponent.

    They are made by `pattern` and `count`, or listed in `ids`, or in `file`, one in a line.
    """

    pattern: str | None = Field(
        default=None, description="with {n}, which counts from 0; '{n:05d}' pads it"
    )
    count: PositiveInt | None = Field(default=None, description="how many `pattern` makes")
    ids: tuple[str, ...] = ()
    file: str | None = None
    exponent: float = Field(default=1.0, ge=0)


class Prompt(Strict):
    """The user's part of a request."""

    tokens: Distribution = Fixed(value=64)
    # Words by default: about a token each in most vocabularies. With a tokenizer so many tokens
    # exactly, without those that the service adds (a beginning of text, a chat template).
    file: str | None = Field(
        default=None, description="a text per line (JSONL: `prompt`, `reference`), drawn in turn"
    )
    tokenizer: str | None = Field(default=None, description="tokenizer.json: lengths are exact")


class SharedPrefix(Strict):
    """A system prompt that many requests share, as of one application."""

    tokens: PositiveInt
    groups: PositiveInt = 1
    exponent: float = Field(
        default=0.0, ge=0, description="above 0: some groups are popular (Zipf)"
    )


class Session(Strict):
    """A conversation: each turn waits for the last answer, thinks, and sends the whole history."""

    turns: Distribution
    think_s: Distribution = Fixed(value=1)


class Cancel(Strict):
    """Callers that leave while the answer streams."""

    share: Part = Field(gt=0, le=1)
    after_tokens: Distribution | None = None
    after_s: Distribution | None = None


class Read(Strict):
    """Callers that read slowly."""

    share: Part = Field(default=1, gt=0, le=1)
    bytes_per_s: PositiveFloat


class Images(Strict):
    """Images that go along with a prompt (chat and Create Completion), noise of this size."""

    count: Distribution = Fixed(value=1)
    width: PositiveInt = 224
    height: PositiveInt = 224


class Slo(Strict):
    """What a single request must meet to count as good (goodput)."""

    ttft_ms: PositiveFloat | None = None
    tpot_ms: PositiveFloat | None = None
    e2e_ms: PositiveFloat | None = None


class Account(Strict):
    """Who asks."""

    name: str
    weight: PositiveFloat = 1
    key_env: str | None = Field(default=None, description="environment variable with its API key")
    headers: dict[str, str] = {}


class Traffic(Strict):
    """One kind of requests."""

    name: str
    weight: PositiveFloat = 1
    endpoint: Literal["create_completion", "completions", "chat"] = "create_completion"
    stream: bool = True
    models: dict[str, PositiveFloat] = Field(default={}, description="ID to weight")
    custom_ids: Zipf | None = None
    accounts: tuple[Account, ...] = ()
    prompt: Prompt = Prompt()
    shared_prefix: SharedPrefix | None = None
    output: Distribution = Fixed(value=64)
    ignore_eos: bool = Field(
        default=False, description="generate all tokens of `output` (vLLM's field, /v1 only)"
    )
    session: Session | None = None
    images: Images | None = None
    cancel: Cancel | None = None
    read: Read | None = None
    priority: int | None = None
    slo: Slo = Slo()
    body: dict[str, Any] = Field(
        default={}, description="fields that go into every body as they are"
    )


# --- whom it goes to, what goes wrong, and what counts as good ---


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
