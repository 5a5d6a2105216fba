"""What a service has to meet, as a share of requests that may miss it."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal

from loadtests.compare.reading import Observation

TIMES = {"us": 0.001, "ms": 1.0, "s": 1000.0}
SHARES = ("error_share", "rejected_share", "wrong_share", "goodput_share")
FORM = re.compile(r"(?P<measure>[a-z_0-9]+)\s*=\s*(?P<number>[0-9.]+)\s*(?P<unit>us|ms|s|%)?")
LATENCY = re.compile(r"(?P<timed>ttft|tpot|e2e)_p(?P<digits>\d{1,4})(_ms)?")


@dataclass(frozen=True)
class Objective:
    """At most `allowed` of the requests may be bad; `limit_ms` says of a latency what is too late.

    `ttft_p99=500ms` says the same as: at most 1% of requests get their first token after 500 ms. A
    request that failed or was rejected never gets one: a service that refuses half of them is not
    fast to the rest.
    """

    text: str
    measure: Literal["ttft", "tpot", "e2e", "error", "rejected", "wrong", "goodput"]
    allowed: float
    limit_ms: float | None = None

    @classmethod
    def parse(cls, text: str) -> Objective:
        """As `ttft_p99=500ms`, `error_share=1%`, `goodput_share=99%`. Raises ValueError."""
        form = FORM.fullmatch(text.strip())
        if form is None:
            raise ValueError(f"{text!r} is no objective, as ttft_p99=500ms or error_share=1%")
        name, unit = form["measure"], form["unit"]
        try:
            number = float(form["number"])
        except ValueError:
            raise ValueError(f"{text!r}: {form['number']} is no number") from None
        if latency := LATENCY.fullmatch(name):
            if unit == "%":
                raise ValueError(f"{text!r}: a latency is in us, ms or s")
            # p999 is 99.9%.
            allowed = 1 - float(f"0.{latency['digits']}") if len(latency["digits"]) > 1 else 1.0
            if not 0 < allowed < 1 or number <= 0:
                raise ValueError(f"{text!r}: a percentile from p10 to p9999, above 0 ms")
            return cls(text, latency["timed"], allowed, number * TIMES[unit or "ms"])  # type: ignore[arg-type]
        if name not in SHARES:
            raise ValueError(
                f"{text!r}: {name} cannot be searched for; ttft_pNN, tpot_pNN, e2e_pNN, "
                f"{', '.join(SHARES)} can"
            )
        if unit not in (None, "%"):
            raise ValueError(f"{text!r}: a share is in %")
        share = number / 100 if unit == "%" else number
        allowed = 1 - share if name == "goodput_share" else share
        if not 0 < allowed < 1:
            raise ValueError(
                f"{text!r}: no number of requests can show that there is never one; allow some"
            )
        return cls(text, name.removesuffix("_share"), allowed)  # type: ignore[arg-type]

    @property
    def latency(self) -> Literal["ttft", "tpot", "e2e"] | None:
        """Which latency it limits, if it does."""
        return self.measure if self.measure in ("ttft", "tpot", "e2e") else None  # type: ignore[return-value]

    def value(self, seen: Observation) -> float | None:
        """What the request has of it: a latency, or 1 where it is bad and 0 where it is not.
        Infinite: it never came. None: it is not one of those that count."""
        if self.measure == "error":
            return float(seen.outcome == "error")
        if self.measure == "rejected":
            return float(seen.outcome == "rejected")
        if self.measure == "wrong":
            return None if seen.wrong is None else float(seen.wrong)
        if self.measure == "goodput":
            return None if seen.outcome == "cancelled" else float(not seen.good)
        if seen.outcome in ("error", "rejected"):
            return math.inf
        found: float | None = getattr(seen, self.measure)
        return found

    def bad(self, value: float) -> bool:
        """Whether that value misses it."""
        return value > self.limit_ms if self.limit_ms is not None else value > 0
