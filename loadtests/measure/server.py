"""The service's own counts of a run, as its metrics tell them.

Each function here makes a `ServerCounts` of one source; `ledger.py` makes one of what was charged.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from loadtests.measure.record import Outcome
from loadtests.measure.scrape import Snapshot

# The `endpoint` of what a scenario sends to serving, and of what its listener refused.
_ENDPOINTS = {
    "/v4/completions",
    "/v2/completions",
    "/v1/completions",
    "/v1/chat/completions",
    "none",
}
# vLLM's reasons for an end; the others are errors.
_REASONS = {
    "stop": Outcome.OK,
    "length": Outcome.OK,
    "repetition": Outcome.OK,
    "abort": Outcome.CANCELLED,
}
_NO_MODEL = "none"
_VLLM_UNCOUNTED = "vLLM does not count what it refuses, nor every request that its client has left"


@dataclass(slots=True)
class Tally:
    """Requests and their tokens, by the names of models or accounts."""

    requests: Counter[str] = field(default_factory=Counter)
    prompt_tokens: Counter[str] = field(default_factory=Counter)
    completion_tokens: Counter[str] = field(default_factory=Counter)

    def add(self, name: str, requests: int, prompt_tokens: int, completion_tokens: int) -> None:
        """Count some requests of this name."""
        self.requests[name] += requests
        self.prompt_tokens[name] += prompt_tokens
        self.completion_tokens[name] += completion_tokens


@dataclass(slots=True)
class ServerCounts:
    """What a source has counted between two times."""

    source: str
    counts_refused: bool = True  # False: maybe not what it refuses
    counts_left: bool = True  # False: maybe not what failed, or what its client has left
    uncounted: str = ""  # why one of them is False, in words
    models: Tally = field(default_factory=Tally)
    accounts: Tally = field(default_factory=Tally)  # empty where it does not know them
    outcomes: Counter[Outcome] = field(default_factory=Counter)
    running: int = 0  # requests that had not ended
    without_usage: int = 0  # requests whose tokens it does not know
    # What it may have counted and lost: sentences. With one, its counts are at least so much.
    lost: list[str] = field(default_factory=list)


def from_metrics(before: Snapshot, after: Snapshot) -> ServerCounts | None:
    """The counts of serving's routers, or of vLLM servers where there are no such; None without
    either. The routers count everything that callers ask, and outlive engines."""
    return routers(before, after) or engines(before, after)


def routers(before: Snapshot, after: Snapshot) -> ServerCounts | None:
    """The counts of serving's routers."""
    counts = ServerCounts("metrics of the routers")
    found = Counting(before, after, lambda name: name == "serving_requests_total")
    for labels, value in found.of("serving_requests_total"):
        if labels.get("endpoint") not in _ENDPOINTS:
            continue
        counts.outcomes[Outcome(labels["outcome"])] += value
        counts.models.requests[_model(labels.get("model", ""))] += value
    for labels, value in found.of("serving_prompt_tokens_total"):
        counts.models.prompt_tokens[labels["model"]] += value
    for labels, value in found.of("serving_completion_tokens_total"):
        counts.models.completion_tokens[labels["model"]] += value
    counts.without_usage = sum(
        value for _, value in found.of("serving_requests_without_usage_total")
    )
    counts.running, counts.lost = round(after.running), found.lost
    return counts if found.targets else None


def engines(before: Snapshot, after: Snapshot) -> ServerCounts | None:
    """The counts of vLLM's own servers."""
    counts = ServerCounts(
        "metrics of vLLM", counts_refused=False, counts_left=False, uncounted=_VLLM_UNCOUNTED
    )
    found = Counting(before, after, lambda name: name == "vllm:request_success_total")
    for labels, value in found.of("vllm:request_success_total"):
        reason = labels.get("finished_reason", "")
        counts.outcomes[_REASONS.get(reason, Outcome.ERROR)] += value
        counts.models.requests[labels.get("model_name", "")] += value
    for labels, value in found.of("vllm:prompt_tokens_total"):
        counts.models.prompt_tokens[labels.get("model_name", "")] += value
    for labels, value in found.of("vllm:generation_tokens_total"):
        counts.models.completion_tokens[labels.get("model_name", "")] += value
    counts.running, counts.lost = round(after.running), found.lost
    return counts if found.targets else None


class Counting:
    """How far counters have grown between two snapshots, at the targets that have a certain one."""

    def __init__(self, before: Snapshot, after: Snapshot, marks: Callable[[str], bool]) -> None:
        self._before, self._after = before, after
        self.targets = {target for target, name, _ in after.counters if marks(name)}
        self.lost = [
            f"{target}: {why}"
            for target, why in sorted(after.lost.items())
            if target in self.targets
        ]

    def of(self, name: str) -> Iterator[tuple[dict[str, str], int]]:
        """The labels of each series of this name, and by how much it has grown."""
        for series, value in self._after.counters.items():
            target, found, labels = series
            if found == name and target in self.targets:
                yield dict(labels), round(value - self._before.counters.get(series, 0.0))


def _model(label: str) -> str:
    return "" if label == _NO_MODEL else label
