"""What a run came to: the JSON that reports, comparisons and capacity searches read."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict


class Figures(BaseModel):
    """Strict and whole: a reader of an old file is told so and does not guess."""

    model_config = ConfigDict(extra="forbid")


class Latency(Figures):
    """Percentiles of one measure, in milliseconds, from an HDR histogram of three digits."""

    count: int
    mean: float
    min: float
    p50: float
    p75: float
    p90: float
    p95: float
    p99: float
    p999: float
    max: float
    histogram: str  # HdrHistogram V2, compressed, base64; its values are microseconds


class Cut(Figures):
    """The counted requests of one model, account, priority, traffic and phase; None means all.

    Of many models the most frequent have cuts of their own, and the others one under the name
    `(other)`: the cuts by model add up to all. Requests without a priority are in no cut of one.
    """

    model: str | None = None
    account: str | None = None
    priority: int | None = None
    traffic: str | None = None
    phase: str | None = None
    requests: int
    outcomes: dict[str, int]
    errors: dict[str, int]  # by kind
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    usage_missing: int  # requests whose tokens are not known
    # From the start of their phases to the end of these, or of the last whole answer: what a server
    # delivers after the end of a phase has taken it that time too.
    seconds: float
    requests_per_s: float  # that ended as they should: ok, or cancelled as planned
    tokens_per_s: float  # completion tokens
    good: int  # requests that met their traffic's SLO: ok, not wrong, in time
    goodput_per_s: float
    checked: int
    wrong: int
    # From due: the headline. None where nothing has it.
    ttft: Latency | None
    tpot: Latency | None
    gap: Latency | None
    e2e: Latency | None
    # From sent: service time, beside them.
    service_ttft: Latency | None
    service_e2e: Latency | None
    lag: Latency | None  # from due to sent: the client's own

    @property
    def good_share(self) -> float | None:
        """Of all but those whose callers left as planned, which are neither good nor bad."""
        stayed = self.requests - self.outcomes.get("cancelled", 0)
        return self.good / stayed if stayed else None


class Second(Figures):
    """A part of the run, for the timeline; requests count where they were due.

    `sent`, `ended` and `tokens` count where they happened. In a long run a part has more than one
    second: `seconds` divides the counts into rates.
    """

    at_s: int
    seconds: int = 1
    due: int
    sent: int
    ended: int
    ok: int
    failed: int
    rejected: int
    cancelled: int
    tokens: int
    in_flight: int  # at its end
    ttft_p50_ms: float | None
    ttft_p99_ms: float | None
    e2e_p99_ms: float | None


class PhaseFigures(Figures):
    """A phase as it was configured and as it was delivered."""

    name: str
    start_s: float
    end_s: float
    counted: bool
    closed_loop: bool
    due: int
    sent: int  # before its end, or as late as the scenario's client may be
    configured_rate: float | None  # requests/s that were due; None for a closed loop
    achieved_rate: float


class Load(Figures):
    """A part of an open-loop phase under one load: a step, or a tenth or so of a ramp.

    What latency against load is drawn from, and its knee. Requests count where they were due.
    """

    phase: str
    start_s: float
    end_s: float
    due_rate: float  # requests/s that were due in it
    ended_rate: float  # requests/s that ended in it, well or not
    ttft: Latency | None
    tpot: Latency | None
    e2e: Latency | None


class Mark(Figures):
    """Something that happened at a time: a fault's command and how it ended."""

    at_s: float
    name: str
    status: int | None  # None: it was killed, as it took too long
    output: str
    took_s: float | None = None


class Scrape(Figures):
    """A metric of the service over the run: its samples in seconds and values, by target."""

    target: str
    name: str
    labels: dict[str, str]
    samples: list[tuple[float, float]]


class Count(Figures):
    """One count of the client's beside the server's own."""

    what: str  # requests ok, completion tokens, …
    model: str | None
    client: int
    server: int
    explained: int = 0  # of the difference: what is known, as requests whose usage never came
    note: str = ""
    source: str = ""  # where the server's count comes from: metrics of routers, of vLLM, …
    account: str | None = None

    @property
    def unexplained(self) -> int:
        """What is left of the difference: a finding."""
        return max(0, abs(self.server - self.client) - self.explained)


class Verdict(Figures):
    """A goal of the scenario and whether it was met."""

    goal: str
    value: float | None
    met: bool


class Summary(Figures):
    """A whole run."""

    version: Literal[1] = 1
    scenario: str
    about: str
    seed: int
    url: str
    started_at: str  # ISO 8601, UTC
    seconds: float
    processes: int
    client: dict[str, str]  # versions and machine, to tell two runs apart
    invalid: list[str]  # why the figures must not be used; empty: valid
    cuts: list[Cut]  # the first one is of all counted requests
    timeline: list[Second]
    phases: list[PhaseFigures]
    marks: list[Mark]
    scrapes: list[Scrape]
    counts: list[Count]
    verdicts: list[Verdict]
    loads: list[Load] = []  # of ramps and steps, and of phases that follow each other as steps
    source: str = ""  # the scenario as it ran, in YAML
    notes: list[str] = []  # what is missing beside the figures: pages that could not be read
