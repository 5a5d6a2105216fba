"""The table of `make overhead`: what each row compares, and the bar it has to meet.

A row's value is the median of the ratios of the rounds. The runs of one round follow each other
within seconds, so a shared machine that is slow for a minute is slow for both.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Runs = Mapping[str, Sequence[Mapping[str, Any]]]


@dataclass(frozen=True)
class Row:
    """One line: a figure of the case `one` over (or minus) that of the case `other`."""

    name: str
    figure: str
    one: str
    other: str
    # A row without a bar is printed for comparison only.
    bar: float | None = None
    at_least: bool = False
    difference: bool = False
    # The bar of the one-minute check for CI.
    loose: float | None = None


ROWS = (
    Row("frontend CPU per token, /v4 over bare", "frontend_us",
        "ours /v4", "bare /v1", 1.0, loose=1.2),
    Row("frontend CPU per token, /v1 over bare", "frontend_us",
        "ours /v1", "bare /v1", 1.25, loose=1.6),
    Row("frontend CPU per token, /v1/chat/completions over bare", "frontend_us",
        "ours chat", "bare chat", 1.25),
    Row("throughput over bare", "tokens_per_s",
        "ours /v4", "bare /v1", 0.95, at_least=True, loose=0.75),
    Row("throughput over bare, 128 streams", "tokens_per_s",
        "ours /v4, 128 streams", "bare /v1, 128 streams", 0.95, at_least=True),
    Row("throughput over Ray Serve LLM (direct streaming)", "tokens_per_s",
        "ours, beside Ray Serve LLM", "Ray Serve LLM /v1", 1.3, at_least=True),
    Row("the same, both with Ray Serve LLM's executor", "tokens_per_s",
        "ours, its executor", "Ray Serve LLM /v1, its executor", 1.0, at_least=True),
    Row("TTFT p50 minus bare, 1 stream, ms", "ttft_p50_ms",
        "ours /v4, 1 stream", "bare /v1, 1 stream", 3.0, difference=True),
    Row("TTFT p99 over bare", "ttft_p99_ms",
        "ours /v4", "bare /v1", 1.1),
    Row("p99 gap between tokens over bare", "gap_p99_ms",
        "ours /v4", "bare /v1", 1.1),
    Row("frontend CPU per token, custom ID over base, all else equal", "frontend_us",
        "ours /v4, adapter", "ours /v4, base beside an adapter", 1.05),
    Row("the same, engine slower for the custom ID (for comparison)", "frontend_us",
        "ours /v4, adapter", "ours /v4"),
    Row("the same of bare vLLM (for comparison)", "frontend_us",
        "bare /v1, adapter", "bare /v1"),
    Row("frontend CPU per 1-token request minus bare, us", "request_us",
        "ours /v4, 1 token, whole", "bare /v1, 1 token, whole", 500.0, difference=True),
    Row("router alone, CPU per event over vllm-router", "event_us",
        "our router", "vllm-router", 1.0, loose=1.3),
)  # fmt: skip


@dataclass(frozen=True)
class Finding:
    """A row with its value."""

    row: Row
    value: float
    low: float
    high: float

    @property
    def met(self) -> bool:
        return self._meets(self.row.bar)

    @property
    def grossly_missed(self) -> bool:
        return not self._meets(self.row.loose)

    def _meets(self, bar: float | None) -> bool:
        if bar is None:
            return True
        return self.value >= bar if self.row.at_least else self.value <= bar


def findings(runs: Runs) -> Iterator[Finding]:
    """Yield every row whose two cases have run, with its value."""
    for row in ROWS:
        if not (runs.get(row.one) and runs.get(row.other)):
            continue
        ones = [float(run[row.figure]) for run in runs[row.one]]
        others = [float(run[row.figure]) for run in runs[row.other]]
        pairs = [_compare(row, *pair) for pair in zip(ones, others, strict=True)]
        yield Finding(row, statistics.median(pairs), min(pairs), max(pairs))


def _compare(row: Row, one: float, other: float) -> float:
    return one - other if row.difference else one / other


def text(runs: Runs, extra: Sequence[tuple[str, str, bool]]) -> str:
    """Write the medians of every case, then the table. `extra` are more lines: name, value, met."""
    lines = [f"{'case (medians)':32} {'frontend us/token':>24} {'engine us':>9} {'tokens/s':>9}"
             f" {'TTFT p50/p99 ms':>16} {'gap p99':>8} {'idle s/s':>8}"]  # fmt: skip
    for name, rounds in runs.items():
        if "tokens_per_s" not in rounds[0]:
            continue

        def of(key: str, rounds: Sequence[Mapping[str, Any]] = rounds) -> float:
            return statistics.median(float(run.get(key, 0.0)) for run in rounds)

        front = sorted(float(run["frontend_us"]) for run in rounds)
        spread = f"{of('frontend_us'):.1f} ({front[0]:.1f} to {front[-1]:.1f})"
        first = f"{of('ttft_p50_ms'):.1f}/{of('ttft_p99_ms'):.1f}"
        lines.append(f"{name:32} {spread:>24} {of('engine_us'):9.1f} {of('tokens_per_s'):9.0f}"
                     f" {first:>16} {of('gap_p99_ms'):8.1f} {of('idle_cpu'):8.3f}")  # fmt: skip
    lines += ["", f"{'measure':62} {'value':>8} {'rounds':>18} {'bar':>8}"]
    for found in findings(runs):
        bar = verdict = ""
        if found.row.bar is not None:
            bar = f"{'>=' if found.row.at_least else '<='} {found.row.bar:g}"
            verdict = "met" if found.met else "NOT MET"
        rounds_said = f"{found.low:.2f} to {found.high:.2f}"
        lines.append(
            f"{found.row.name:62} {found.value:8.2f} {rounds_said:>18} {bar:>8}  {verdict}"
        )
    lines += [f"{name:62} {value:>36}  {'met' if met else 'NOT MET'}" for name, value, met in extra]
    return "\n".join(lines)
