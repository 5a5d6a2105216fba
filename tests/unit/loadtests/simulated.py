"""Runs that never were: records of a simulated queue, and the summary they come to."""

from __future__ import annotations

import heapq
import math
import random
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

from loadtests.measure.histogram import Histogram, micros
from loadtests.measure.record import Outcome, Record
from loadtests.measure.summary import (
    Count,
    Cut,
    Latency,
    Load,
    Mark,
    PhaseFigures,
    Scrape,
    Second,
    Summary,
    Verdict,
)


@dataclass(frozen=True)
class Service:
    """A queue before `servers` of exponential service: M/M/c if the arrivals are Poisson."""

    servers: int = 4
    mean_s: float = 0.1
    # Extra time until the first token, whatever the load.
    base_s: float = 0.02
    token_s: float = 0.01
    tokens: int = 12
    # A slow wave over the run that all requests share: what makes them depend on each other.
    wave: Callable[[float], float] = lambda at: 1.0
    failing: float = 0.0
    wrong: float = 0.0


@dataclass(frozen=True)
class Mix:
    """Whom the requests are of."""

    models: Sequence[str] = ("base",)
    accounts: Sequence[str] = ("",)
    priorities: Sequence[int | None] = (None,)
    traffics: Sequence[str] = ("chat",)


def poisson(rate: Callable[[float], float], top: float, end: float, seed: int) -> Iterator[float]:
    """Arrivals of a changing rate that is never above `top`, by thinning."""
    chance = random.Random(seed)
    at = 0.0
    while (at := at + chance.expovariate(top)) < end:
        if chance.random() * top < rate(at):
            yield at


def serve(
    arrivals: Sequence[float], service: Service, seed: int, mix: Mix = Mix(), warm_s: float = 0.0,
    phases: Sequence[tuple[str, float]] = (("steady", math.inf),), lag_s: float = 0.0005,
) -> list[Record]:  # fmt: skip
    """What becomes of requests that arrive then. `phases` are names with their ends."""
    chance = random.Random(f"{seed} service")
    who = random.Random(f"{seed} who")
    free = [0.0] * service.servers
    made: list[Record] = []
    for index, due in enumerate(arrivals):
        begun = due + who.expovariate(1 / lag_s)
        start = max(begun, heapq.heappop(free))
        busy = chance.expovariate(1 / service.mean_s) * service.wave(due)
        heapq.heappush(free, start + busy)
        first = start + service.base_s + 0.3 * busy
        token = service.token_s * chance.lognormvariate(0, 0.2)
        phase = next(name for name, end in phases if due < end)
        record = Record(
            index, phase, who.choice(mix.traffics),
            mix.models[min(len(mix.models) - 1, int(who.paretovariate(0.7)) - 1)],
            who.choice(mix.accounts), who.choice(mix.priorities), index, 0, True,
            due >= warm_s, due,
        )  # fmt: skip
        record.begun_s, record.sent_s = begun, begun + 0.0002
        if chance.random() < service.failing:
            record.status, record.end_s = chance.choice(((500, start), (0, start + 1)))
            record.error = "server error" if record.status else "connection reset"
        else:
            record.outcome, record.status, record.first_s = Outcome.OK, 200, first
            record.event_s = array("d", [first + token * n for n in range(service.tokens)])
            record.end_s = record.event_s[-1]
            record.prompt_tokens, record.completion_tokens = 64, service.tokens
            record.usage_seen = record.checked = True
            record.wrong = chance.random() < service.wrong
        made.append(record)
    return made


def latency(seconds: Sequence[float]) -> Latency | None:
    """The percentiles of these, as a summary has them."""
    histogram = Histogram()
    for value in seconds:
        histogram.add(max(1, micros(value)))
    return histogram.latency()


def cut(records: Sequence[Record], seconds: float, slo_s: float = 0.5, **of: object) -> Cut:
    """One cut of these records."""
    ok = [record for record in records if record.outcome is Outcome.OK]
    good = sum(1 for r in ok if r.ttft_s is not None and r.ttft_s <= slo_s)
    tokens = sum(record.completion_tokens for record in ok)
    firsts = [record for record in ok if record.first_s is not None]
    return Cut.model_validate(
        dict(
            of, requests=len(records), outcomes=Counter(str(r.outcome) for r in records),
            errors=Counter(r.error for r in records if r.error),
            prompt_tokens=sum(r.prompt_tokens for r in ok), cached_tokens=0,
            completion_tokens=tokens,
            usage_missing=len(records) - len(ok), seconds=seconds, requests_per_s=len(ok) / seconds,
            tokens_per_s=tokens / seconds, good=good, goodput_per_s=good / seconds,
            checked=sum(r.checked for r in records), wrong=sum(r.wrong for r in records),
            ttft=latency([r.ttft_s for r in firsts if r.ttft_s is not None]),
            tpot=latency([r.tpot_s for r in firsts if r.tpot_s is not None]),
            gap=latency([] if of else [b - a for r in ok for a, b in pairwise(r.event_s)]),
            e2e=latency([r.e2e_s for r in ok]),
            service_ttft=latency([r.first_s - r.sent_s for r in firsts if r.first_s is not None]),
            service_e2e=latency([r.end_s - r.sent_s for r in ok]),
            lag=latency([r.lag_s for r in records]),
        )
    )  # fmt: skip


def summary(
    records: Sequence[Record],
    end_s: float,
    phases: Sequence[tuple[str, float]] = (),
    **more: object,
) -> Summary:
    """The summary of a run with these records."""
    counted = [record for record in records if record.counted]
    warm = min((record.due_s for record in counted), default=0.0)
    seconds = end_s - warm
    ends = list(phases) or [(records[0].phase, end_s)]
    starts = [0.0, *(end for _, end in ends)]
    cuts = [cut(counted, seconds)]
    for dimension in ("model", "account", "traffic", "priority", "phase"):
        of: dict[object, list[Record]] = {}
        for record in counted:
            of.setdefault(getattr(record, dimension), []).append(record)
        cuts += [
            cut(each, seconds, **{dimension: name}) for name, each in of.items() if name is not None
        ]
    fields = dict[str, object](
        scenario="simulated", about="", seed=1, url="http://127.0.0.1:8000",
        started_at="2026-01-02T03:04:05Z", seconds=end_s, processes=1,
        client={"python": "3.11.7", "machine": "x86_64, 2 cores"}, invalid=[], cuts=cuts,
        timeline=timeline(records, end_s),
        phases=[
            PhaseFigures(
                name=name, start_s=start, end_s=end, counted=start >= warm - 1, closed_loop=False,
                due=(due := sum(start <= r.due_s < end for r in records)), sent=due,
                configured_rate=due / (end - start), achieved_rate=due / (end - start),
            )
            for start, (name, end) in zip(starts, ends, strict=False)
        ],
        marks=[], scrapes=[], counts=[], verdicts=[],
    )  # fmt: skip
    return Summary.model_validate(fields | more)


def timeline(records: Sequence[Record], end_s: float) -> list[Second]:
    """A figure for each second."""
    due: list[list[Record]] = [[] for _ in range(math.ceil(end_s))]
    ended: Counter[int] = Counter()
    sent: Counter[int] = Counter()
    for record in records:
        due[int(record.due_s)].append(record)
        sent[int(record.sent_s)] += 1
        ended[int(record.end_s)] += 1
    flying = 0
    made = []
    for at, those in enumerate(due):
        flying += sent[at] - ended[at]
        firsts = sorted(r.ttft_s * 1000 for r in those if r.ttft_s is not None)
        ends = sorted(r.e2e_s * 1000 for r in those if r.outcome is Outcome.OK)
        made.append(
            Second(
                at_s=at, due=len(those), sent=sent[at], ended=ended[at], ok=len(ends),
                failed=len(those) - len(ends), rejected=0, cancelled=0,
                tokens=sum(r.completion_tokens for r in those), in_flight=flying,
                ttft_p50_ms=quantile(firsts, 0.5), ttft_p99_ms=quantile(firsts, 0.99),
                e2e_p99_ms=quantile(ends, 0.99),
            )
        )  # fmt: skip
    return made


def quantile(ordered: Sequence[float], share: float) -> float | None:
    """Of ordered values; None of none."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else None


def loads(
    records: Sequence[Record], parts: Sequence[tuple[float, float]], phase: str
) -> list[Load]:
    """The figures of these parts of a run."""
    made = []
    for start, end in parts:
        those = [r for r in records if start <= r.due_s < end]
        ok = [r for r in those if r.outcome is Outcome.OK]
        made.append(
            Load(
                phase=phase, start_s=start, end_s=end, due_rate=len(those) / (end - start),
                ended_rate=sum(start <= r.end_s < end for r in records) / (end - start),
                ttft=latency([r.ttft_s for r in ok if r.ttft_s is not None]),
                tpot=latency([r.tpot_s for r in ok if r.tpot_s is not None]),
                e2e=latency([r.e2e_s for r in ok]),
            )
        )  # fmt: skip
    return made


# IDs that would run, break out of a tag, an attribute, a style or a script, or hide what they are.
HOSTILE = (
    "<script>window.hacked = 1</script>",
    "\"><img src=x onerror='window.hacked = 1'>",
    "' onmouseover='window.hacked = 1' x='",
    "</title></style></script><svg onload=window.hacked=1>",
    "</textarea><!-- ",
    "javascript:window.hacked=1",
    "{{7*7}} ${7*7} &lt;b&gt; &#60;",
    "turned \u202egnp.exe",
    "nul \x00 bell \x07 line\nend",
    "x" * 3000,
)


@cache
def showcase(hostile: bool) -> Summary:
    """A run with everything: a warm-up, a ramp past the knee, a fault, metrics, counts, goals."""
    phases = (("warm-up", 20.0), ("ramp", 140.0), ("after the fault", 200.0))

    def rate(at: float) -> float:
        return 10.0 if at < 20 else 6 + (at - 20) * 0.33 if at < 140 else 18.0

    names = ("tiny-llama", "tiny-llama.pirate.240601-120000", "tiny-mistral-instruct", "llama-3-8b",
             "zephyr-7b-beta", "mixtral", "gpt-4o", "flan-t5-xxl")  # fmt: skip
    mix = Mix(
        (*HOSTILE, *names) if hostile else names,
        (HOSTILE[0], "b") if hostile else ("research", "support", "batch"),
        (None, 0, 5),
        ("chat", "summaries"),
    )
    service = Service(
        servers=4, wave=lambda at: 3.0 if 150 < at < 160 else 1.0, failing=0.01, wrong=0.002
    )
    records = serve(list(poisson(rate, 50, 200, 7)), service, 7, mix, warm_s=20, phases=phases)
    wave = [(t + 0.3, max(0.0, math.sin(t / 9) * 4 + t / 20)) for t in range(0, 200, 2)]
    scrapes = [
        Scrape(target=f"10.0.0.{n}:8080", name=name, labels={"model": mix.models[n]},
               samples=[(t, v * scale * (1 + n / 3)) for t, v in wave])
        for n in range(3)
        for name, scale in (
            ("vllm:num_requests_waiting", 1.0), ("vllm:num_requests_running", 3.0),
            ("vllm:gpu_cache_usage_perc", 0.03), ("process_resident_memory_bytes", 2e8),
        )
    ] + [
        Scrape(target="10.0.0.1:8080", name="serving_requests_total", labels={},
               samples=[(float(t), 20.0 * (t if t < 150 else t - 150)) for t in range(0, 200, 2)])
    ]  # fmt: skip
    return summary(
        records, 200.0, phases, scenario=HOSTILE[3] if hostile else "ramp",
        about="A rate that grows until the service cannot follow, and a replica that is killed.",
        marks=[Mark(at_s=150, name=HOSTILE[1] if hostile else "kill a replica", status=0,
                    output="killed 4711"),
               Mark(at_s=165, name="drain", status=1, output="no such replica")],
        scrapes=scrapes,
        counts=[
            Count(what="requests ok", model=None, client=4000, server=4000, source="routers"),
            Count(what="completion tokens", model=mix.models[0], client=48_000, server=48_012,
                  explained=12, note="one answer was cut off", source="vLLM"),
            Count(what="prompt tokens", model=None, client=256_000, server=256_064, source="vLLM"),
        ],
        verdicts=[Verdict(goal="ttft_p99_ms at most 500", value=1234.5, met=False),
                  Verdict(goal="error_share at most 0.02", value=0.0105, met=True)],
        loads=loads(records, [(20 + 10 * n, 30 + 10 * n) for n in range(12)], "ramp"),
        invalid=[f"lag of {HOSTILE[0]} is 40 ms at p99, more than 20"] if hostile else [],
        source="name: ramp\nphases:\n- name: warm-up\n  seconds: 20\n",
    )  # fmt: skip
