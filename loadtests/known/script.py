"""What the known server does with a request: a function of its body and the server's seed alone."""

from __future__ import annotations

import random
import zlib
from dataclasses import dataclass
from typing import Literal

End = Literal["whole", "error", "rejected", "reset", "truncated", "error_event", "hung"]
ENDS: tuple[End, ...] = ("error", "rejected", "reset", "truncated", "error_event", "hung")


@dataclass(frozen=True, slots=True)
class Shape:
    """The distributions that delays are drawn from, in seconds, and the share of each bad end."""

    first_s: float = 0.05  # median; log-normal
    first_sigma: float = 0.5
    gap_s: float = 0.02  # median; log-normal
    gap_sigma: float = 0.5
    events: int | None = None  # of each stream; None: the request's max_tokens
    no_usage: float = 0.0  # share of streams that never tell their usage
    cached: float = 0.25  # share of the prompt's tokens that were cached
    error: float = 0.0
    rejected: float = 0.0
    reset: float = 0.0
    truncated: float = 0.0
    error_event: float = 0.0
    hung: float = 0.0  # nothing comes any more

    def share(self, end: End) -> float:
        """Return the share of requests that end so."""
        return float(getattr(self, end))


@dataclass(frozen=True, slots=True)
class Script:
    """What will be done: `delays` are before each event, the first from the arrival."""

    delays: tuple[float, ...]
    end: End
    usage: bool


def script(body: bytes, shape: Shape, tokens: int, seed: int) -> Script:
    """Return what this body gets. A bad end comes in the middle of the stream."""
    draw = random.Random(zlib.crc32(body) ^ (seed << 32))
    chance = draw.random()
    end: End = "whole"
    for each in ENDS:
        chance -= shape.share(each)
        if chance < 0:
            end = each
            break
    usage = draw.random() >= shape.no_usage
    count = shape.events or tokens
    if end in ("reset", "truncated", "error_event", "hung"):
        count = count // 2
    elif end in ("error", "rejected"):
        count = 1
    delays = [shape.first_s * draw.lognormvariate(0, shape.first_sigma)]
    delays += [shape.gap_s * draw.lognormvariate(0, shape.gap_sigma) for _ in range(count - 1)]
    return Script(tuple(delays[:count]), end, usage)
