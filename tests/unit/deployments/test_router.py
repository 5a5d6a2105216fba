"""A router as a replica of Ray Serve, without Ray."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from deployments import router
from deployments.router import RouterReplica


@pytest.fixture
async def started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Start a router's replica and return what it has logged."""
    monkeypatch.setenv("SERVING_LOG_DIR", str(tmp_path))
    context = SimpleNamespace(replica_id=SimpleNamespace(unique_id="r1"))
    monkeypatch.setattr(router.serve, "get_replica_context", lambda: context)
    monkeypatch.setattr(router.ray.util, "get_node_ip_address", lambda: "127.0.0.1")
    for borrowed in ("open_no_grpc_port", "Router", "Directory"):
        monkeypatch.setattr(router, borrowed, lambda *_, **__: SimpleNamespace())

    async def start(*, asks: bool) -> list[dict[str, Any]]:
        monkeypatch.setattr(router, "asks_for_token", lambda: asks)
        # No object of the class: its `__del__` is a coroutine, which only Ray Serve awaits.
        replica: Any = SimpleNamespace()
        await RouterReplica.__init__(replica, drain_s=1.0, leave_s=0.0)
        (file,) = tmp_path.glob("router-*.jsonl")
        return [json.loads(line) for line in file.read_text().splitlines()]

    return start


async def test_a_cluster_that_asks_for_no_token_is_told_in_the_log(started: Any) -> None:
    (told,) = await started(asks=False)
    assert (told["event"], told["level"]) == ("ray_asks_for_no_token", "ERROR")
    assert told["router"] == "r1"
    assert "may run anything" in told["risk"]


async def test_one_that_asks_for_a_token_is_not(started: Any) -> None:
    assert await started(asks=True) == []
