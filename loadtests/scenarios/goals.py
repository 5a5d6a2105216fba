"""The measures that a goal can be about."""

from __future__ import annotations

import re
from itertools import product

LATENCIES = ("ttft", "tpot", "gap", "e2e", "service_ttft", "service_e2e", "lag")
POINTS = ("mean", "min", "p50", "p75", "p90", "p95", "p99", "p999", "max")
OTHERS = (
    "error_share",
    "rejected_share",
    "goodput_share",
    "wrong_answers",
    "tokens_per_s",
    "requests_per_s",
    "goodput_per_s",
    "unreconciled",
    "memory_growth_mb",
)
MEASURES = (*(f"{a}_{p}_ms" for a, p in product(LATENCIES, POINTS)), *OTHERS)
# Of streams alone.
STREAMED = re.compile("(service_)?ttft|tpot|gap")
