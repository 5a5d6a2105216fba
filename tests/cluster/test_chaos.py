"""Processes of every kind are killed under load, one after the other (`make chaos` runs longer)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from loadtests.inside import chaos
from loadtests.inside.processes import KINDS
from tests.live import KEY, Server, poll

pytestmark = pytest.mark.breaks_server


def test_killed_processes_harm_nobody(live: Server, record_property: Any) -> None:
    assert live.process is not None
    poll(live.idle, 10, "nothing runs")
    seen = asyncio.run(
        chaos.run(
            live.url, KEY, live.process.pid, seconds=34, every_s=4.2, clients=6, seed=20261125
        )
    )
    print(seen.report())
    assert not seen.problems, seen.report()
    assert set(seen.kills) == {kind for kind, _ in KINDS}
    assert seen.ends["ok"] > 50, seen.report()
    assert seen.kept >= len(seen.told) > 50, seen.report()
    live.wait_whole()
    record_property("ends", dict(seen.ends))
