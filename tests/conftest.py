"""What every test may use."""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from serving.observability.logs import Log

Eventually = Callable[..., Awaitable[Any]]


@pytest.fixture(autouse=True)
def _no_ray_here() -> Iterator[None]:
    """Ray starts a cluster in any process that asks it for something. Clusters of tests are
    processes of their own; one in here would stay, with ports that they need."""
    yield
    ray = sys.modules.get("ray")
    if ray is not None and ray.is_initialized():
        ray.shutdown()
        pytest.fail("this test started Ray in the process of the tests")


@pytest.fixture
def log() -> Log:
    """A log that nobody reads."""
    logger = logging.getLogger("serving.test")
    logger.propagate = False
    logger.addHandler(logging.NullHandler())
    return Log(logger)


@pytest.fixture
def eventually() -> Eventually:
    """`await eventually(condition)`: what `condition()` returns once it is true."""

    async def poll(condition: Callable[[], Any], within_s: float = 5.0) -> Any:
        deadline = time.monotonic() + within_s
        while not (found := condition()):
            assert time.monotonic() < deadline, f"not within {within_s:g} s"
            await asyncio.sleep(0.005)
        return found

    return poll


# The server that cluster and SDK tests share, and databases.
pytest_plugins = ["tests.live", "tests.stores"]
