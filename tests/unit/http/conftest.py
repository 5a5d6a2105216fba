"""The listener is tested on the event loop of routers and engine servers, uvloop, and on
asyncio's, whose transports differ in when they tell what."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import pytest
import uvloop


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    loops = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
    if item.path.name == "test_listener.py":
        return loops
    name = "uvloop" if item.path.name == "test_fuzz.py" else "asyncio"
    return {name: loops[name]}
