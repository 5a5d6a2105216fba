"""Whether a process of the service grows."""

from __future__ import annotations

from collections.abc import Sequence

from loadtests.measure.summary import Scrape

_MEMORY = "process_resident_memory_bytes"


def memory_growth_mb(scrapes: Sequence[Scrape], start_s: float, end_s: float) -> float | None:
    """Return the most that a process's resident memory was above that at `start_s`, until `end_s`,
    in MB. None if no page tells it. A process that came later is left out: it has to fill first.
    """
    grown = []
    for scrape in scrapes:
        if scrape.name != _MEMORY:
            continue
        # A sample stands for what follows it: those of a level stretch are left out.
        before = [value for at_s, value in scrape.samples if at_s <= start_s]
        within = [value for at_s, value in scrape.samples if start_s < at_s <= end_s]
        if before:
            grown.append(max([before[-1], *within]) - before[-1])
    return max(grown) / 1e6 if grown else None
