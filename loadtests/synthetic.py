"""A synthetic engine: it streams in OpenAI's format, without a model, an event every 20 ms.

    python -m loadtests.synthetic --port 9000 [--events 200] [--interval 0.02]

`loadtests.router_alone` measures what routers in front of it cost.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from typing import Any

import uvicorn

WORD = "word "


def event(finish_reason: str | None) -> bytes:
    """Return an event that is about as long as one of Create Completion."""
    choice = {"index": 0, "text": WORD, "logprobs": None, "finish_reason": finish_reason}
    body = {"id": "cmpl-1", "object": "text_completion", "model": "synthetic", "choices": [choice]}
    return b"data: " + json.dumps(body, separators=(",", ":")).encode() + b"\n\n"


class SyntheticEngine:
    """The ASGI app."""

    def __init__(self, events: int, interval_s: float) -> None:
        self._events = events
        self._interval_s = interval_s

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] != "/v1/completions":
            models = {"object": "list", "data": [{"id": "synthetic", "object": "model"}]}
            await _start(send, b"application/json")
            await send({"type": "http.response.body", "body": json.dumps(models).encode()})
            return
        while (await receive()).get("more_body"):
            pass
        await _start(send, b"text/event-stream; charset=utf-8")
        middle = {"type": "http.response.body", "body": event(None), "more_body": True}
        for _ in range(self._events - 1):
            await asyncio.sleep(self._interval_s)
            await send(middle)
        await asyncio.sleep(self._interval_s)
        last = event("stop") + b"data: [DONE]\n\n"
        await send({"type": "http.response.body", "body": last})


async def _start(send: Any, content_type: bytes) -> None:
    headers = [(b"content-type", content_type)]
    await send({"type": "http.response.start", "status": 200, "headers": headers})


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--events", type=int, default=200, help="of each stream")
    parser.add_argument("--interval", type=float, default=0.02, help="seconds between events")
    args = parser.parse_args()
    app = SyntheticEngine(args.events, args.interval)
    uvicorn.run(app, port=args.port, log_level="error", access_log=False, lifespan="off")


if __name__ == "__main__":
    main()
