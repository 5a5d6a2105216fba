"""A router's leases: one call at a time to each model, renewed as long as the router needs it."""

from __future__ import annotations

import asyncio

import pytest

from deployments import leases
from deployments.leases import Leases
from serving.observability.logs import Log
from tests.conftest import Eventually


class Calls:
    """The calls that hold leases, and how they end."""

    def __init__(self) -> None:
        self.made: list[str] = []
        self.open = 0
        self.fail = False
        self.end = asyncio.Event()

    async def __call__(self, model: str) -> None:
        self.made.append(model)
        if self.fail:
            raise RuntimeError("no such application")
        self.open += 1
        try:
            await self.end.wait()
            self.end.clear()
        finally:
            self.open -= 1


async def test_a_lease_is_held_renewed_and_given_back(log: Log, eventually: Eventually) -> None:
    calls = Calls()
    held = Leases(calls, log)
    held.want("m", True)
    held.want("m", True)
    await eventually(lambda: calls.open == 1)
    calls.end.set()
    await eventually(lambda: calls.made == ["m", "m"] and calls.open == 1)
    held.want("m", False)
    await eventually(lambda: calls.open == 0)
    held.want("m", False)
    assert calls.made == ["m", "m"]


async def test_a_lease_that_fails_is_tried_again(
    log: Log, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "RETRY_S", 0.01)
    calls = Calls()
    calls.fail = True
    held = Leases(calls, log)
    held.want("m", True)
    await eventually(lambda: len(calls.made) >= 3)
    calls.fail = False
    await eventually(lambda: calls.open == 1)
    held.close()
    await eventually(lambda: calls.open == 0)
