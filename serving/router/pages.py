"""What is looked up and not completed: which models there are, and how this router is."""

from __future__ import annotations

import time
from urllib.parse import unquote

from prometheus_client import CONTENT_TYPE_LATEST

from serving.api.models import model_instance, model_page, openai_model, parse_query
from serving.catalogue.catalogue import Catalogue
from serving.http.request import Handler, Request, respond, respond_json
from serving.observability.metrics import RouterMetrics
from serving.router.auth import KeyRing, choose_account, user_info
from serving.router.fleet import Fleet
from serving.router.listing import list_models, one_model
from serving.router.resolve import Resolver
from serving.router.status import fleet_ready, fleet_status, scrape_targets


class Pages:
    """The handlers of every `GET`; `paths` has them by path."""

    def __init__(self, keys: KeyRing, fleet: Fleet, metrics: RouterMetrics, router: str) -> None:
        self._keys = keys
        self._fleet = fleet
        self._metrics = metrics
        self._router = router
        self._started = int(time.time())
        self._resolver = Resolver(Catalogue(models=()))
        self.paths: dict[str, Handler] = {
            "/v1/models": self._models,
            "/v4/models": self._model_instances,
            "/user-info": self._user_info,
            "/status": self._status,
            "/metrics/targets": self._targets,
            "/health": self._health,
            # What KubeRay's probes ask of every pod that serves.
            "/-/healthz": self._health,
            "/ready": self._ready,
            "/metrics": self._metrics_text,
        }

    def serve(self, resolver: Resolver) -> None:
        """Take over what is served from now on."""
        self._resolver = resolver

    def of_one_model(self, path: str) -> Handler | None:
        """The handler of a path that names a model, if it does."""
        if path.startswith("/v1/models/"):
            return self._model
        return self._model_instance if path.startswith("/v4/models/") else None

    # models

    async def _models(self, request: Request) -> None:
        self._keys.authenticate(request.headers)
        query = parse_query(request.scope["query_string"])
        entries = list_models(self._resolver, self._fleet, everything=query.all)
        data = [openai_model(entry, self._started) for entry in entries]
        await respond_json(
            request.send, 200, {"object": "list", "data": data}, request.reply_headers
        )

    async def _model(self, request: Request) -> None:
        self._keys.authenticate(request.headers)
        name = unquote(request.path.removeprefix("/v1/models/"))
        entry = one_model(name, self._resolver, self._fleet)
        body = openai_model(entry, self._started)
        await respond_json(request.send, 200, body, request.reply_headers)

    async def _model_instances(self, request: Request) -> None:
        account = self._account(request)
        query = parse_query(request.scope["query_string"])
        entries = list_models(self._resolver, self._fleet, everything=query.all)
        body = model_page(entries, query, self._started, account)
        await respond_json(request.send, 200, body, request.reply_headers)

    async def _model_instance(self, request: Request) -> None:
        account = self._account(request)
        name = unquote(request.path.removeprefix("/v4/models/"))
        entry = one_model(name, self._resolver, self._fleet)
        body = model_instance(entry, self._started, account)
        await respond_json(request.send, 200, body, request.reply_headers)

    def _account(self, request: Request) -> str | None:
        caller = self._keys.authenticate(request.headers)
        return choose_account(caller, request.headers, None)

    async def _user_info(self, request: Request) -> None:
        caller = self._keys.authenticate(request.headers)
        account = choose_account(caller, request.headers, None)
        await respond_json(request.send, 200, user_info(caller, account), request.reply_headers)

    # operation

    async def _status(self, request: Request) -> None:
        self._keys.authenticate(request.headers)
        body = {
            "router": self._router,
            "uptime_s": round(time.time() - self._started, 1),
            "models": fleet_status(self._resolver, self._fleet),
        }
        await respond_json(request.send, 200, body, request.reply_headers)

    async def _targets(self, request: Request) -> None:
        """Prometheus' HTTP service discovery: every router and engine replica. It asks for a key
        because it names internal addresses."""
        self._keys.authenticate(request.headers)
        targets = scrape_targets(self._fleet.listed)
        await respond_json(request.send, 200, targets, request.reply_headers)

    async def _health(self, request: Request) -> None:
        await respond_json(
            request.send, 200, {"alive": True, "router": self._router}, request.reply_headers
        )

    async def _ready(self, request: Request) -> None:
        ready, body = fleet_ready(self._resolver, self._fleet)
        await respond_json(request.send, 200 if ready else 503, body, request.reply_headers)

    async def _metrics_text(self, request: Request) -> None:
        await respond(
            request.send,
            200,
            self._metrics.text(),
            CONTENT_TYPE_LATEST.encode(),
            request.reply_headers,
        )
