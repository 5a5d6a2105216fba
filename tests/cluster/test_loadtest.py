"""The shipped scenario `smoke` against a real service, as `make loadtest` runs it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from loadtests.measure.summary import Summary
from tests.live import KEY, Server


def let_the_ledger_settle(live: Server) -> None:
    """What earlier tests asked for arrives in it a moment later; then it stands still."""
    seen, since = None, time.monotonic()
    until = since + 30
    while time.monotonic() - since < 3:
        assert time.monotonic() < until, "somebody else calls the service"
        total = live.client.get(f"{live.url}/v4/usage").raise_for_status().json()["total"]
        if total != seen:
            seen, since = total, time.monotonic()
        time.sleep(0.2)


def test_smoke(live: Server, tmp_path: Path) -> None:
    """What the client counts is what the service counts, and every goal is met.

    Engines, routers and this client share two cores here: how late the client is does not matter.
    """
    let_the_ledger_settle(live)
    options = ("--metrics-targets", f"{live.url}/metrics/targets", "--out", str(tmp_path))
    options += ("--usage", f"{live.url}/v4/usage")
    late = ("--set", "client.max_lag_p99_ms=2000")
    done = subprocess.run(
        [sys.executable, "-m", "loadtests", "run", "smoke", "--url", live.url, *options, *late],
        env=os.environ | {"LOADTEST_API_KEY": KEY},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    summary = Summary.model_validate_json((tmp_path / "summary.json").read_text())
    everything = summary.cuts[0]
    assert everything.outcomes == {"ok": everything.requests} | dict.fromkeys(
        set(everything.outcomes) - {"ok"}, 0
    )
    assert everything.requests > 40
    assert summary.notes == []
    assert {count.source for count in summary.counts} == {"metrics of the routers", "the ledger"}
    for count in summary.counts:
        assert count.unexplained == 0, count
