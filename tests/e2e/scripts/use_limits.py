"""Runs into limits with an SDK, in its own environment; prints what it met as JSON.

The job has the SDK's module, its client's name and arguments, a completion (`call`), a key with a
limit by the minute (`key`) and one whose budget is used up (`spent`).
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from typing import Any

import httpx

job = json.load(sys.stdin)
sdk = importlib.import_module(job["module"])
asked: list[float] = []
told: list[tuple[float, str | None]] = []


def client(key: str, retries: int) -> Any:
    hooks: Any = {
        "request": [lambda _: asked.append(time.monotonic())],
        "response": [lambda r: told.append((time.monotonic(), r.headers.get("retry-after")))],
    }
    asked.clear()
    told.clear()
    wire = httpx.Client(event_hooks=hooks, timeout=60, trust_env=False)
    return getattr(sdk, job["client"])(
        api_key=key, max_retries=retries, http_client=wire, **job["arguments"]
    )


def ask(made: Any) -> Any:
    """The error that it raised, None if none."""
    try:
        made.completions.create(**job["call"])
    except sdk.APIError as error:
        return {
            "error": type(error).__name__,
            "is_rate_limit": isinstance(error, sdk.RateLimitError),
            "status": error.status_code,
            "message": str(error),
            "sent": len(asked),
        }
    return None


patient = client(job["key"], 0)
while (refused := ask(patient)) is None:
    pass
after = ask(client(job["key"], 3))
waited = [
    [later - at, float(said or 0)] for (at, said), later in zip(told, asked[1:], strict=False)
]
spent = ask(client(job["spent"], 5))
print(json.dumps({"refused": refused, "after": after, "waited": waited, "spent": spent}))
