"""What an engine replica answers over plain HTTP: `/health`, `/ready` and `/metrics`.

Nothing else: calls come over the links only.
"""

from __future__ import annotations

import hmac
import json

from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from serving.engine.interface import Engine
from serving.errors import EngineFailed
from serving.http.request import bearer

# Prometheus and probes keep a handful.
MAX_CONNECTIONS = 256


def ops_app(engine: Engine, *, model: str, replica: str, token: str = "") -> Starlette:
    """The ASGI app. `/health` and `/ready` are 503 once the engine is dead."""

    def knows_token(request: Request) -> bool:
        header = request.headers.get("authorization", "").encode("latin-1")
        sent = bearer({b"authorization": header})
        return not token or hmac.compare_digest(sent, token.encode())

    async def health(request: Request) -> Response:
        try:
            await engine.check()
        except EngineFailed as error:
            if not knows_token(request):
                return _json({"alive": False}, 503)
            return _json({"alive": False, "model": model, "reason": error.message}, 503)
        if not knows_token(request):
            return _json({"alive": True})
        load = engine.load()
        return _json(
            {
                "alive": True,
                "ready": True,
                "model": model,
                "replica": replica,
                "running": load.running,
                "waiting": load.waiting,
                "adapters": list(load.adapters),
            }
        )

    async def metrics(request: Request) -> Response:
        if not knows_token(request):
            return _json({"reason": "send 'Authorization: Bearer $SERVING_METRICS_TOKEN'"}, 401)
        return Response(generate_latest(REGISTRY), headers={"content-type": CONTENT_TYPE_LATEST})

    return Starlette(
        routes=[Route("/health", health), Route("/ready", health), Route("/metrics", metrics)]
    )


def _json(body: dict[str, object], status: int = 200) -> Response:
    return Response(json.dumps(body), status, media_type="application/json")
