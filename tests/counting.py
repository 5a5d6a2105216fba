"""Sends some load with the load generator and compares its counts with the service's own."""

from __future__ import annotations

import time
from typing import Any

from loadtests.clock import Clock
from loadtests.load.plan import plans
from loadtests.measure.aggregate import Aggregate
from loadtests.measure.ledger import Ledger, from_ledger
from loadtests.measure.reconcile import reconcile
from loadtests.measure.scrape import Scraper
from loadtests.measure.summary import Count
from loadtests.run.worker import drive
from loadtests.scenarios.model import Scenario

Counts = dict[str, Count]


async def counted(
    url: str,
    key: str,
    scraper: Scraper,
    *traffic: dict[str, Any],
    rate: float,
    seconds: float = 1,
    ledger: Ledger | None = None,
) -> Counts:
    """The counts of a run by what they are of; those of the ledger have "ledger" before it."""
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
    used = None if ledger is None else await ledger.read()
    aggregate = Aggregate.of(scenario)
    shares = plans(scenario, {"LOADTEST_API_KEY": key})
    await drive(shares, scenario.target, Clock(time.monotonic()), aggregate.add)
    after = await scraper.settle(every_s=0.05)
    assert scraper.failures == {}
    charged = []
    if ledger is not None:
        assert used is not None, ledger.trouble
        admitted = sum(cell.ok + cell.cancelled for cell in aggregate.cells.values())
        now = await ledger.settle(used, admitted)
        assert now is not None, ledger.trouble
        charged.append(from_ledger(used, now))
    counts = reconcile(before, after, aggregate, charged)
    assert counts, "the service says nothing"
    assert counts[0].client > rate * seconds / 3
    return {_name(count): count for count in counts}


def _name(count: Count) -> str:
    source = "ledger" if count.source == "the ledger" else None
    return " ".join(filter(None, (source, count.what, count.model, count.account)))


def findings(counts: Counts) -> dict[str, int]:
    """What nothing explains."""
    return {what: count.unexplained for what, count in counts.items() if count.unexplained}
