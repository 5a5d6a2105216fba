"""Sends some load with the load generator and compares its counts with the service's own."""

from __future__ import annotations

import time
from typing import Any

from loadtests.clock import Clock
from loadtests.load.plan import plans
from loadtests.measure.aggregate import Aggregate
from loadtests.measure.reconcile import reconcile
from loadtests.measure.scrape import Scraper
from loadtests.measure.summary import Count
from loadtests.run.worker import drive
from loadtests.scenarios.model import Scenario

Counts = dict[str, Count]


async def counted(
    url: str, key: str, scraper: Scraper, *traffic: dict[str, Any], rate: float, seconds: float = 1
) -> Counts:
    """The counts of a run by what they are of."""
    arrivals = {"kind": "poisson", "rate": rate}
    scenario = Scenario.model_validate(
        {
            "name": "counts",
            "target": {"url": url},
            "phases": [{"name": "all", "seconds": seconds, "arrivals": arrivals}],
            "traffic": traffic,
        }
    )
    before = await scraper.scrape()
    aggregate = Aggregate.of(scenario)
    shares = plans(scenario, {"LOADTEST_API_KEY": key})
    await drive(shares, scenario.target, Clock(time.monotonic()), aggregate.add)
    after = await scraper.settle(every_s=0.05)
    assert scraper.failures == {}
    counts = reconcile(before, after, aggregate)
    assert counts, "the service says nothing"
    assert counts[0].client > rate * seconds / 3
    return {f"{c.what} {c.model}" if c.model else c.what: c for c in counts}


def findings(counts: Counts) -> dict[str, int]:
    """What nothing explains."""
    return {what: count.unexplained for what, count in counts.items() if count.unexplained}
