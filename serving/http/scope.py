"""ASGI's scope of a request (asgi.readthedocs.io/en/latest/specs/www.html)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

from starlette.types import Scope

from serving.http.head import Head
from serving.http.request import WRITE


def connection_scope(transport: asyncio.BaseTransport) -> dict[str, Any]:
    """What is the same for all requests of a connection."""
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "scheme": "http",
        "root_path": "",
        "server": _address(transport.get_extra_info("sockname")),
        "client": _address(transport.get_extra_info("peername")),
    }


def request_scope(shared: dict[str, Any], head: Head, write: Callable[[bytes], bool]) -> Scope:
    """The scope of one request: `shared` and what its head says."""
    path, _, query = head.target.partition(b"?")
    text = path.decode("ascii")
    return {
        **shared,
        "http_version": head.version,
        "method": head.method,
        "path": unquote(text) if "%" in text else text,
        "raw_path": path,
        "query_string": query,
        "headers": head.headers,
        "state": {},
        "extensions": {WRITE: write},
    }


def _address(found: Any) -> tuple[str, int] | None:
    """Host and port of a socket's name."""
    return (str(found[0]), int(found[1])) if isinstance(found, tuple) else None
